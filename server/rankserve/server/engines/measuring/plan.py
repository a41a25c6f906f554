"""Which steps are measured."""

from collections.abc import Iterator
from dataclasses import dataclass

from rankserve.server.engines.measuring.errors import MeasureError

# Tokens that a stream produces while steps beside it are measured, at most about.
GROWTH = 256
_SHORT, _LONG = 32, 512
_PREFILLS = (16, 64, 256, 1024)
_QUICK_PREFILLS = (32, 512)
_MOST_COUNTS = 10
# As many tokens in that many prompts as in the longest one.
_PROMPTS = 4
# Of the KV cache; beyond it the engine might preempt.
_KV_SHARE = 0.9


@dataclass(slots=True, frozen=True)
class Limits:
    """What the engine takes. None where that is not known.

    Attributes:
        max_sequences: sequences in one step.
        max_batched_tokens: tokens in one step.
        max_model_len: prompt plus answer.
        kv_tokens: all that its KV cache holds.
    """

    max_sequences: int
    max_batched_tokens: int
    max_model_len: int | None = None
    kv_tokens: int | None = None


@dataclass(slots=True, frozen=True)
class Plan:
    """The grid.

    Attributes:
        prefills: tokens of prompts whose prefill is measured, ascending.
        counts: sequences that decode, ascending; a full batch only decodes.
        contexts: tokens of their prompts, ascending.
        steps: of each kind that only decodes.
        repetitions: of each kind that prefills.
        warm_up: requests before anything is measured.
    """

    prefills: tuple[int, ...]
    counts: tuple[int, ...]
    contexts: tuple[int, ...]
    steps: int = 24
    repetitions: int = 3
    warm_up: int = 3

    def cells(self, limits: Limits) -> Iterator[tuple[int, int]]:
        """(context, sequences) of what decodes; contexts are cut to what the engine holds."""
        for context in self.contexts:
            for count in self.counts:
                room = _room(limits, count, self.prefills[-1])
                if room >= self.contexts[0]:
                    yield min(context, room), count

    def prompts_beside(self, count: int, limits: Limits) -> Iterator[tuple[int, int]]:
        """(tokens of each, prompts) of what is prefilled beside so many sequences.

        Several prompts only beside the fewest: what they save does not depend on what decodes.
        """
        for tokens in self.prefills:
            yield tokens, 1
        prompts = min(_PROMPTS, limits.max_sequences - count)
        if count == self.counts[0] and prompts > 1 and self.prefills[-1] >= prompts:
            yield self.prefills[-1] // prompts, prompts


def make_plan(
    limits: Limits,
    *,
    quick: bool = False,
    prefills: tuple[int, ...] = (),
    counts: tuple[int, ...] = (),
    contexts: tuple[int, ...] = (),
) -> Plan:
    """A grid for an engine; what is given is taken as it is.

    Raises:
        MeasureError: it cannot take what is given.
    """
    counts = tuple(sorted(set(counts))) or _counts(limits.max_sequences, 4 if quick else _MOST_COUNTS)
    most = limits.max_batched_tokens - counts[-1]
    if limits.max_model_len is not None:
        most = min(most, limits.max_model_len - 1)
    usual = _QUICK_PREFILLS if quick else _PREFILLS
    prefills = tuple(sorted(set(prefills))) or _up_to(usual, most)
    if not prefills or prefills[-1] > most:
        raise MeasureError(
            f"a step takes up to {most} tokens beside {counts[-1]} sequences (--max-batched-tokens, or the"
            " engine's max_model_len), so prompts must have fewer: --prefills"
        )
    if counts[-1] > limits.max_sequences:
        raise MeasureError(f"--sequences {counts[-1]} are more than --max-sequences")
    contexts = tuple(sorted(set(contexts))) or (_SHORT, _LONG)
    longest = min(_room(limits, 1, prefills[-1]), contexts[-1])
    if longest < contexts[0]:
        raise MeasureError(f"the engine has no room for prompts of {contexts[0]} tokens: --contexts")
    return Plan(
        prefills=prefills,
        counts=counts,
        contexts=tuple(sorted({min(context, longest) for context in contexts})),
        **({"steps": 12, "repetitions": 2, "warm_up": 1} if quick else {}),
    )


def _up_to(values: tuple[int, ...], most: int) -> tuple[int, ...]:
    fitting = [value for value in values if value < most]
    # Where the engine takes less than the largest of them, the most it takes.
    return (*fitting, most) if len(fitting) < len(values) and most >= 1 else tuple(fitting)


def _counts(most: int, points: int) -> tuple[int, ...]:
    """1, 2, 4 ... and the last two; fewer of them, as even, if these are too many.

    A full batch has no room for a prefill, so the fullest that has it is one less.
    """
    last = max(1, most - 1)
    powers = [1 << i for i in range(last.bit_length()) if 1 << i < last] + [last]
    points -= 1
    if len(powers) > points:
        powers = [powers[round(i * (len(powers) - 1) / (points - 1))] for i in range(points)]
    return tuple(sorted({*powers, most}))


def _room(limits: Limits, count: int, prefill: int) -> int:
    """The longest prompts of so many sequences that can decode beside the longest prefill."""
    room = 1 << 31
    if limits.max_model_len is not None:
        room = limits.max_model_len - GROWTH
    if limits.kv_tokens is not None:
        room = min(room, int((limits.kv_tokens * _KV_SHARE - prefill) / count) - GROWTH)
    return room
