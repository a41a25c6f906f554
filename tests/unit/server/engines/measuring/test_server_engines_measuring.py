"""Measuring gives back the step times that an engine has. Its time is in the hands of the test."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from rankserve.server.engines.fake import FakeEngine, FakeEngineSettings
from rankserve.server.engines.measuring.engine import MeasuredEngine
from rankserve.server.engines.measuring.errors import MeasureError
from rankserve.server.engines.measuring.measure import Measurement
from rankserve.server.engines.measuring.output import add_command, write_steps
from rankserve.server.engines.measuring.plan import Limits, make_plan
from rankserve.server.engines.measuring.timing import MeasuredStep
from rankserve.server.engines.measuring.words import Prompts
from rankserve.server.engines.simulated.step_measurements import read_steps

ITL_MS, PER_SEQUENCE_MS = 20, 4
# Turns of the event loop in which a token gets from the engine to who measures it.
_TURNS = 60


class Time:
    """Goes on when the engine sleeps, once all that it sent has arrived."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def clock(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        self.now_s += seconds
        for _ in range(_TURNS):
            await asyncio.sleep(0)


def fake(time: Time, **settings: Any) -> FakeEngine:
    return FakeEngine(
        FakeEngineSettings(
            **{
                "ttft_s": 0.0,
                "itl_s": ITL_MS / 1e3,
                "itl_per_sequence_s": PER_SEQUENCE_MS / 1e3,
                "max_num_seqs": 4,
                **settings,
            }
        ),
        clock=time.clock,
        sleep=time.sleep,
    )


async def measure(
    engine: FakeEngine, time: Time, *, max_sequences: int = 4, **options: Any
) -> list[MeasuredStep]:
    async with MeasuredEngine(engine.base_url, timeout_s=20) as measured:
        about = await measured.about()
        limits = Limits(max_sequences, 2048, about.max_model_len, about.kv_tokens)
        plan = make_plan(limits, quick=True)
        measurement = Measurement(measured, about, limits, plan, Prompts(0), clock=time.clock, **options)
        return await measurement.run()


async def test_it_gives_back_the_times_of_steps() -> None:
    time = Time()
    async with fake(time) as engine:
        steps = await measure(engine, time)
        assert (engine.running, engine.waiting) == (0, 0)
    assert {(step.prefill_tokens, step.prompts, step.decode_sequences) for step in steps} == {
        *((prefill, 1, count) for prefill in (32, 512) for count in (0, 1, 2, 3)),
        *((0, 0, count) for count in (1, 2, 3, 4)),
        (510, 3, 1),
    }
    for step in steps:
        sequences = step.decode_sequences + step.prompts
        assert step.step_ms == pytest.approx(ITL_MS + PER_SEQUENCE_MS * sequences, rel=0.02), step


async def test_chunks_of_several_tokens_are_no_steps() -> None:
    time = Time()
    async with fake(time, tokens_per_chunk=3) as engine:
        with pytest.raises(MeasureError, match="several tokens each"):
            await measure(engine, time)


async def test_prompts_are_unlike_all_before() -> None:
    time = Time()
    async with fake(time) as engine:
        await measure(engine, time)
        probes = [record.body["prompt"] for record in engine.requests if record.body["max_tokens"] == 1]
    assert len(probes) > 20
    assert len({probe[:40] for probe in probes}) == len(probes)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("no_usage", "tells no usage with each chunk"),
        ("error", "HTTP 500"),
        ("cut", "lost within an answer"),
        ("error_event", "an error in its stream"),
        ("no_done", "ended after"),
    ],
)
async def test_faults_end_it_with_a_reason(fault: Any, message: str) -> None:
    time = Time()
    async with fake(time, faults={fault: 1.0}) as engine:
        with pytest.raises(MeasureError, match=message):
            await measure(engine, time)
        await _until(lambda: engine.running == engine.waiting == 0)


async def test_nobody_there_is_said() -> None:
    async with MeasuredEngine("http://127.0.0.1:9/v1") as nobody:
        with pytest.raises(MeasureError, match="nobody answers"):
            await nobody.about()


async def test_a_url_without_its_v1_is_taken_for_the_likeliest_mistake() -> None:
    async with (
        fake(Time()) as engine,
        MeasuredEngine(engine.base_url.removesuffix("/v1")) as measured,
    ):
        with pytest.raises(MeasureError, match=r"does the URL end in /v1\?"):
            await measured.about()


async def test_a_model_that_it_has_not_and_a_key_that_lacks_are_said() -> None:
    async with fake(Time(), api_key="secret") as engine:
        for model, key, message in (
            ("other", "secret", "no model 'other'; it has: fake-model"),
            ("", "", "HTTP 401"),
        ):
            async with MeasuredEngine(engine.base_url, model=model, api_key=key) as measured:
                with pytest.raises(MeasureError, match=message) as raised:
                    await measured.about()
            assert "secret" not in str(raised.value)


@pytest.mark.parametrize("max_sequences", [5, 8])
async def test_a_smaller_batch_than_said_is_noticed(max_sequences: int) -> None:
    time = Time()
    async with fake(time) as engine:
        with pytest.raises(MeasureError, match="run at the same time: the engine's batch"):
            await measure(engine, time, max_sequences=max_sequences)
        await _until(lambda: engine.running == engine.waiting == 0)


async def test_an_engine_in_use_is_left_alone_unless_forced() -> None:
    # In real time, so that the other's request takes longer than anybody waits for its end.
    settings = FakeEngineSettings(ttft_s=0, itl_s=0.03, max_num_seqs=4)
    async with FakeEngine(settings) as engine, MeasuredEngine(engine.base_url) as other:
        await other.about()
        theirs = asyncio.create_task(_read(other.stream("one two", 4000)))
        await _until(lambda: engine.running == 1)
        with pytest.raises(MeasureError, match="1 requests of others"):
            await measure(engine, Time())
        theirs.cancel()
        await asyncio.gather(theirs, return_exceptions=True)


async def test_cancelled_it_leaves_nothing_running() -> None:
    time = Time()
    async with fake(time) as engine:
        measuring = asyncio.create_task(measure(engine, time))
        await _until(lambda: engine.running == 3)
        measuring.cancel()
        with pytest.raises(asyncio.CancelledError):
            await measuring
        await _until(lambda: engine.running == engine.waiting == 0)


async def test_its_table_can_be_interpolated(tmp_path: Path) -> None:
    time = Time()
    async with fake(time) as engine:
        steps = await measure(engine, time)
    write_steps(tmp_path / "steps.csv", steps)
    measured = read_steps(tmp_path / "steps.csv")
    assert measured.gap() == ""
    # Nobody prefills beside a full batch; what such a step would take is extrapolated.
    grid = measured.grid()
    beside = grid.times[list(grid.axes[0]).index(512), 0, :, 0]
    assert beside[-1] == pytest.approx(2 * beside[-2] - beside[-3])
    for shorter, longer in pairwise(sorted(steps, key=lambda step: step.context_per_sequence)):
        if (shorter.prefill_tokens, shorter.decode_sequences) == (
            longer.prefill_tokens,
            longer.decode_sequences,
        ):
            assert shorter.step_ms <= longer.step_ms


async def test_the_command_to_run_next_has_the_limits() -> None:
    async with fake(Time()) as engine, MeasuredEngine(engine.base_url) as measured:
        about = await measured.about()
    command = add_command(Path("out/steps.csv"), about, Limits(4, 1024, 4096), "here")
    assert " ".join(command) == (
        "rankserve profile add out/fake-model.toml --steps out/steps.csv --kv-blocks KV_BLOCKS"
        " --max-sequences 4 --max-batched-tokens 1024 --max-model-len 4096 --source here"
    )


async def _read(chunks: Any) -> None:
    async for _ in chunks:
        pass


async def _until(
    condition: Callable[[], bool], sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await sleep(0.001)
