"""From the arrival of tokens to the durations of steps."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median

# Where a step's place is (prefilled tokens, decoding sequences, which of the contexts).
_SEQUENCES = 1


@dataclass(slots=True, frozen=True)
class Arrival:
    """A chunk: when it came, and how many tokens there were then."""

    at_s: float
    tokens: int


@dataclass(slots=True, frozen=True)
class Gap:
    """A step, as one stream shows it: how long it took, and the stream's tokens before it."""

    seconds: float
    tokens_before: int


@dataclass(slots=True, frozen=True)
class MeasuredStep:
    """One kind of step.

    Attributes:
        prefill_tokens, decode_sequences, context_per_sequence: what is in it.
        prompts: that its prefilled tokens are of.
        step_ms: how long it takes.
        samples: how often it was seen.
        fastest_ms, slowest_ms: of these.
    """

    prefill_tokens: int
    decode_sequences: int
    context_per_sequence: int
    prompts: int
    step_ms: float
    samples: int
    fastest_ms: float
    slowest_ms: float


def gaps(arrivals: Sequence[Arrival], after_tokens: int) -> list[Gap]:
    """The steps from a stream's arrival with so many tokens on; several in one chunk have their shares."""
    return [
        Gap((last.at_s - first.at_s) / (last.tokens - first.tokens), first.tokens)
        for first, last in pairwise(arrivals)
        if first.tokens >= after_tokens and last.tokens > first.tokens
    ]


def gap_that_ends_at(arrivals: Sequence[Arrival], at_s: float) -> Gap | None:
    """The step whose token came nearest to that time; None if its chunk has others too."""
    steps = [(first, last) for first, last in pairwise(arrivals) if last.tokens > first.tokens]
    if not steps:
        return None
    first, last = min(steps, key=lambda step: abs(step[1].at_s - at_s))
    return Gap(last.at_s - first.at_s, first.tokens) if last.tokens == first.tokens + 1 else None


def summarised(
    prefill_tokens: int,
    decode_sequences: int,
    context: float,
    seconds: Sequence[float],
    *,
    prompts: int = 1,
) -> MeasuredStep:
    """One kind of step from all that were seen: their median."""
    return MeasuredStep(
        prefill_tokens=prefill_tokens,
        decode_sequences=decode_sequences,
        context_per_sequence=round(context),
        prompts=prompts if prefill_tokens else 0,
        step_ms=1e3 * median(seconds),
        samples=len(seconds),
        fastest_ms=1e3 * min(seconds),
        slowest_ms=1e3 * max(seconds),
    )


def never_shorter(steps: Iterable[MeasuredStep]) -> list[MeasuredStep]:
    """The same steps, none shorter than one with less context, fewer prefilled tokens or fewer sequences.

    Where noise has it otherwise they get their mean: a line through them would lead below zero. Beside no
    sequence at all a prompt may take longer, since that measurement has what a request costs beside its step.
    """
    steps = list(steps)
    for _ in range(len(steps)):
        before = [step.step_ms for step in steps]
        ranks = _context_ranks(steps)
        places = [
            (step.prefill_tokens, step.decode_sequences, rank)
            for step, rank in zip(steps, ranks, strict=True)
        ]
        for along in range(3):
            lines: dict[tuple[int, ...], list[int]] = {}
            for i, place in enumerate(places):
                if along == _SEQUENCES and not place[_SEQUENCES]:
                    continue
                lines.setdefault((*place[:along], *place[along + 1 :]), []).append(i)
            for line in lines.values():
                line.sort(key=lambda i: places[i][along])
                for i, value in zip(line, _ascending([steps[i].step_ms for i in line]), strict=True):
                    steps[i] = replace(steps[i], step_ms=value)
        if all(abs(step.step_ms - old) <= 1e-9 * old for step, old in zip(steps, before, strict=True)):
            break
    return steps


def in_proportion(
    step: MeasuredStep, single: Sequence[MeasuredStep], smooth: Sequence[MeasuredStep]
) -> MeasuredStep:
    """A step with several prompts, changed as `smooth` changed that with the longest prompt beside as many.

    These were measured one after the other, so that the engine's speed was the same for both.
    """
    longest = max(other.prefill_tokens for other in single)
    nearest = min(
        (
            i
            for i, other in enumerate(single)
            if (other.prefill_tokens, other.decode_sequences) == (longest, step.decode_sequences)
        ),
        key=lambda i: abs(single[i].context_per_sequence - step.context_per_sequence),
    )
    return replace(step, step_ms=step.step_ms * smooth[nearest].step_ms / single[nearest].step_ms)


def _context_ranks(steps: Sequence[MeasuredStep]) -> list[int]:
    """Which of its kind's contexts each step has, since they differ a little between kinds."""
    contexts: dict[tuple[int, int], list[int]] = {}
    for step in steps:
        contexts.setdefault((step.prefill_tokens, step.decode_sequences), []).append(
            step.context_per_sequence
        )
    return [
        sorted(contexts[step.prefill_tokens, step.decode_sequences]).index(step.context_per_sequence)
        for step in steps
    ]


def _ascending(values: Sequence[float]) -> list[float]:
    """The nearest values that do not fall (pool adjacent violators)."""
    pools: list[tuple[float, int]] = []
    for value in values:
        mean, size = value, 1
        while pools and pools[-1][0] > mean:
            other, count = pools.pop()
            mean, size = (mean * size + other * count) / (size + count), size + count
        pools.append((mean, size))
    return [mean for mean, size in pools for _ in range(size)]
