"""Measures the steps of a plan on a running engine."""

import asyncio
from collections.abc import Callable, Sequence
from statistics import fmean, median
from time import monotonic
from typing import Any

from rankserve.progress import Stage, stage, tell
from rankserve.server.engines.measuring.engine import About, MeasuredEngine
from rankserve.server.engines.measuring.errors import MeasureError
from rankserve.server.engines.measuring.plan import Limits, Plan
from rankserve.server.engines.measuring.streams import TokenStream, decoding, whole_answer
from rankserve.server.engines.measuring.timing import (
    Gap,
    MeasuredStep,
    gap_that_ends_at,
    gaps,
    in_proportion,
    never_shorter,
    summarised,
)
from rankserve.server.engines.measuring.words import Prompts

# Steps after something changed in the batch that are not looked at.
_SETTLE = 3
# How often a prefill is tried until a step shows it; several prompts may come in different steps.
_TRIES = 4
# Steps within which whoever is sent begins, where there is room.
_PATIENCE = 128
# Words of the two texts that tell how many tokens a word is.
_SHORT_TEXT, _LONG_TEXT = 16, 256
# An engine that sees a connection close frees its place soon.
_IDLE_LOOKS, _IDLE_LOOK_S = 20, 0.1
_MOST_TOKENS = 4096


class Measurement:
    """One run over an engine.

    Args:
        engine: to measure.
        about: what it says of itself.
        limits: of it.
        plan: what to measure.
        prompts: what it is asked.
        force: measures though others use the engine.
        clock: seconds.
    """

    def __init__(
        self,
        engine: MeasuredEngine,
        about: About,
        limits: Limits,
        plan: Plan,
        prompts: Prompts,
        *,
        force: bool = False,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._engine = engine
        self._about = about
        self._limits = limits
        self._plan = plan
        self._prompts = prompts
        self._force = force
        self._clock = clock

    async def run(self) -> list[MeasuredStep]:
        """All steps, ordered by context, sequences and prefilled tokens, then those with several prompts.

        Raises:
            MeasureError: the engine cannot be measured so.
        """
        with stage("warming up"):
            await self._first_look()
            await self._warm_up()
        cells = list(self._plan.cells(self._limits))
        kept: dict[int, list[str]] = {}
        with stage("measuring", len(self._plan.prefills) + len(cells), "settings") as measuring:
            steps = await self._prefills_alone(measuring)
            for context, count in cells:
                # The same prompts for more sequences: an engine that caches prefixes computes them once.
                texts = kept.setdefault(context, [])
                texts += [self._prompts.of_tokens(context) for _ in range(count - len(texts))]
                steps += await self._cell(texts[:count])
                await self._until_idle()
                measuring.advance()
        single = [step for step in steps if step.prompts <= 1]
        smooth = never_shorter(single)
        return [*smooth, *(in_proportion(step, single, smooth) for step in steps if step.prompts > 1)]

    async def _first_look(self) -> None:
        """Learns how long words are, and whether anybody else is there."""
        lengths = []
        for words in (_SHORT_TEXT, _LONG_TEXT):
            stream = await whole_answer(self._engine, self._prompts.of_words(words), self._clock, tokens=2)
            lengths.append((words, stream.prompt_tokens))
        self._prompts.calibrate(*lengths)
        others = await self._until_idle()
        if others is None:
            tell("it tells no load: make sure that nobody else uses it")
        elif others and not self._force:
            raise MeasureError(
                f"the engine has {others} requests of others, which would be measured with ours: wait until"
                " it is idle, or --force"
            )

    async def _warm_up(self) -> None:
        largest = self._plan.prefills[-1]
        for _ in range(self._plan.warm_up):
            texts = [self._prompts.of_tokens(self._plan.contexts[0]) for _ in range(self._plan.counts[-1])]
            streams = self._streams(texts)
            async with decoding(streams):
                await self._all_decode(streams)
            await whole_answer(self._engine, self._prompts.of_tokens(largest), self._clock)
            await self._until_idle()

    async def _prefills_alone(self, measuring: Stage) -> list[MeasuredStep]:
        steps = []
        for tokens in self._plan.prefills:
            seconds = []
            # One more than beside others, where each step is seen by several streams.
            for _ in range(self._plan.repetitions + 1):
                alone = await self._probe(tokens)
                seconds.append(alone.arrivals[0].at_s - alone.sent_s)
            steps.append(summarised(tokens, 0, 0, seconds))
            measuring.advance()
        tell(f"  0 sequences: {_listed(steps)}")
        return steps

    async def _cell(self, texts: Sequence[str]) -> list[MeasuredStep]:
        """The steps of some sequences that decode, alone and beside each prefill."""
        streams = self._streams(texts)
        async with decoding(streams):
            await self._all_decode(streams)
            await self._look_for_others(len(streams))
            steps = [await self._decode_only(streams)]
            # A full batch takes no prompt.
            if len(streams) < self._limits.max_sequences:
                steps += await self._prefills_beside(streams)
        tell(f"{len(streams):3} sequences at {steps[0].context_per_sequence} tokens: {_listed(steps)}")
        return steps

    async def _prefills_beside(self, streams: Sequence[TokenStream]) -> list[MeasuredStep]:
        seen: dict[tuple[int, int], list[tuple[float, float]]]
        seen = {kind: [] for kind in self._plan.prompts_beside(len(streams), self._limits)}
        for _ in range(self._plan.repetitions):
            for (tokens, count), found in seen.items():
                for _ in range(_TRIES):
                    await _each(streams, _SETTLE)
                    probes = await self._probes_beside(streams, tokens, count)
                    await _each(streams, 1)
                    if (step := _step_of(streams, [probe.arrivals[0].at_s for probe in probes])) is not None:
                        found.append(step)
                        break
        if not all(found for (_, count), found in seen.items() if count == 1):
            raise MeasureError(
                "the engine's chunks hold several tokens each, so that single steps cannot be seen: have it"
                " stream each token"
            )
        if not all(seen.values()):
            tell("several prompts never came into the same step, so what they save stays unknown")
        return [
            summarised(
                tokens * count,
                len(streams),
                fmean(context for context, _ in found),
                [seconds for _, seconds in found],
                prompts=count,
            )
            for (tokens, count), found in seen.items()
            if found
        ]

    async def _decode_only(self, streams: Sequence[TokenStream]) -> MeasuredStep:
        await _each(streams, _SETTLE)
        begins = [stream.tokens for stream in streams]
        await _each(streams, self._plan.steps)
        found: list[Gap] = []
        context = 0.0
        for stream, begin in zip(streams, begins, strict=True):
            of_stream = gaps(stream.arrivals, begin)
            found += of_stream
            context += sum(_context(stream, gap) for gap in of_stream)
        return summarised(0, len(streams), context / len(found), [gap.seconds for gap in found])

    async def _probe(self, tokens: int) -> TokenStream:
        probe = await whole_answer(self._engine, self._prompts.of_tokens(tokens), self._clock)
        if not 0.9 <= probe.prompt_tokens / tokens <= 1.1:
            tell(f"a prompt meant to have {tokens} tokens has {probe.prompt_tokens}")
        return probe

    async def _probes_beside(
        self, streams: Sequence[TokenStream], tokens: int, count: int
    ) -> list[TokenStream]:
        """So many prompts at once. Raises MeasureError: one does not begin while the streams go on."""
        probes = [asyncio.create_task(self._probe(tokens)) for _ in range(count)]
        all_probes = asyncio.gather(*probes)
        late = asyncio.create_task(streams[0].reach(streams[0].tokens + _PATIENCE))
        try:
            waiting: list[asyncio.Future[Any]] = [all_probes, late]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if not all_probes.done():
                late.result()
                begun = sum(probe.done() for probe in probes)
                raise MeasureError(self._too_small(len(streams) + count, len(streams) + begun))
            return all_probes.result()
        finally:
            for task in (*probes, late):
                task.cancel()
            await asyncio.gather(all_probes, *probes, late, return_exceptions=True)

    def _too_small(self, wanted: int, found: int) -> str:
        return (
            f"only {found} of {wanted} sequences run at the same time: the engine's batch (--max-sequences)"
            " or its KV cache is smaller"
        )

    def _streams(self, texts: Sequence[str]) -> list[TokenStream]:
        longest = self._limits.max_model_len
        # A few tokens more than meant are no harm.
        left = _MOST_TOKENS if longest is None else longest - round(1.05 * len(texts[0].split())) - 16
        most = max(1, min(_MOST_TOKENS, left))
        return [TokenStream(self._engine, text, most, self._clock) for text in texts]

    async def _all_decode(self, streams: Sequence[TokenStream]) -> None:
        """Waits until each stream has a token. Raises MeasureError: some do not begin while others run."""
        prefilled = self._plan.contexts[-1] * len(streams)
        patience = _PATIENCE + 8 * prefilled // self._limits.max_batched_tokens
        started = [asyncio.create_task(stream.reach(1)) for stream in streams]
        late = [asyncio.create_task(stream.reach(patience)) for stream in streams]
        try:
            waiting = {*started, *late}
            while not all(task.done() for task in started):
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
                begun = sum(stream.tokens > 0 for stream in streams)
                if begun < len(streams) and any(task in done for task in late):
                    raise MeasureError(self._too_small(len(streams), begun))
        finally:
            for task in (*started, *late):
                task.cancel()
            await asyncio.gather(*started, *late, return_exceptions=True)

    async def _look_for_others(self, ours: int) -> None:
        there = await self._engine.requests(self._about.dialect)
        if there is not None and there > ours and not self._force:
            raise MeasureError(
                f"the engine has {there - ours} requests of others, which would be measured with ours: wait"
                " until it is idle, or --force"
            )

    async def _until_idle(self) -> int | None:
        """Waits for a while. Returns how many requests there still are; None if that is not told."""
        there = None
        for _ in range(_IDLE_LOOKS):
            there = await self._engine.requests(self._about.dialect)
            if there == 0:
                break
            await asyncio.sleep(_IDLE_LOOK_S)
            if there is None:
                break
        return there


async def _each(streams: Sequence[TokenStream], tokens: int) -> None:
    """Waits until each stream has so many tokens more."""
    for stream, goal in [(stream, stream.tokens + tokens) for stream in streams]:
        await stream.reach(goal)


def _step_of(streams: Sequence[TokenStream], ends_s: Sequence[float]) -> tuple[float, float] | None:
    """Mean context and duration of the step that ended at these times.

    None if no stream shows it alone, or it is more than one.
    """
    shown = []
    for stream in streams:
        found = {gap_that_ends_at(stream.arrivals, end_s) for end_s in ends_s}
        if len(found) > 1:
            return None
        shown += [(_context(stream, gap), gap.seconds) for gap in found if gap is not None]
    if not shown:
        return None
    return fmean(context for context, _ in shown), median(seconds for _, seconds in shown)


def _context(stream: TokenStream, gap: Gap) -> int:
    """Tokens whose KV is there when the step begins: the last one has none yet."""
    return stream.prompt_tokens + gap.tokens_before - 1


def _listed(steps: Sequence[MeasuredStep]) -> str:
    return ", ".join(
        f"{step.step_ms:.1f} ms"
        + (f" with {step.prefill_tokens} prefilled" if step.prefill_tokens else "")
        + (f" of {step.prompts} prompts" if step.prompts > 1 else "")
        for step in steps
    )
