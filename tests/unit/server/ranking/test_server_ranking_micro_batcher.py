import asyncio
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import numpy as np
import numpy.typing as npt
import pytest

from rankserve.server.ranking.errors import FailureKind, ScoringError
from rankserve.server.ranking.micro_batcher import MicroBatcher

LONG_MS = 60_000.0


class Model:
    """Scores a text by the number in it; records its batches; can be held in the middle of one."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.threads: set[str] = set()
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        self.batches.append(list(texts))
        self.threads.add(threading.current_thread().name)
        self.entered.set()
        self.gate.wait()
        if any("bad" in text for text in texts):
            raise ValueError("no idea what this is: bad")
        return np.array([np.nan if text == "nan" else float(text) for text in texts])

    def hold(self) -> None:
        self.entered.clear()
        self.gate.clear()

    async def is_entered(self) -> None:
        await asyncio.to_thread(self.entered.wait)


@asynccontextmanager
async def batching(model: Model, **options: float) -> AsyncIterator[MicroBatcher]:
    settings = {"timeout_ms": LONG_MS, "batch_target_ms": 1e9, **options}
    batcher = MicroBatcher(model, **settings)  # type: ignore[arg-type]
    try:
        yield batcher
    finally:
        model.gate.set()
        await batcher.aclose()


async def start(batcher: MicroBatcher, text: str) -> asyncio.Task[float]:
    task = asyncio.create_task(batcher.score(text))
    await asyncio.sleep(0)
    return task


async def failure(batcher: MicroBatcher, text: str = "1") -> FailureKind:
    with pytest.raises(ScoringError) as raised:
        await batcher.score(text)
    return raised.value.kind


async def test_each_caller_gets_the_score_of_its_own_prompt() -> None:
    model = Model()
    async with batching(model, max_batch=7) as batcher:
        scores = await asyncio.gather(*(batcher.score(str(number)) for number in range(100)))
    assert scores == list(range(100))
    assert max(map(len, model.batches)) == 7
    assert len(model.threads) == 1
    assert threading.current_thread().name not in model.threads


async def test_prompts_that_arrive_together_share_a_batch() -> None:
    model = Model()
    async with batching(model) as batcher:
        await asyncio.gather(*(batcher.score(str(number)) for number in range(10)))
    assert model.batches == [[str(number) for number in range(10)]]


async def test_what_arrives_while_a_batch_runs_is_the_next_batch() -> None:
    model = Model()
    model.hold()
    async with batching(model) as batcher:
        first = await start(batcher, "0")
        await model.is_entered()
        rest = [await start(batcher, str(number)) for number in (1, 2, 3)]
        model.gate.set()
        assert await asyncio.gather(first, *rest) == [0, 1, 2, 3]
    assert model.batches == [["0"], ["1", "2", "3"]]


async def test_batches_shrink_when_the_model_is_slow() -> None:
    model = Model()
    async with batching(model, batch_target_ms=1e-6) as batcher:
        await asyncio.gather(*(batcher.score(str(number)) for number in range(5)))
    assert list(map(len, model.batches)) == [1] * 5


async def test_a_poisonous_prompt_fails_alone() -> None:
    model = Model()
    async with batching(model) as batcher:
        results = await asyncio.gather(
            *(batcher.score(text) for text in ("1", "bad", "2", "nan", "3")), return_exceptions=True
        )
    assert [results[index] for index in (0, 2, 4)] == [1, 2, 3]
    assert [getattr(results[index], "kind", None) for index in (1, 3)] == [FailureKind.MODEL] * 2
    assert "bad" not in str(results[1])


async def test_scores_of_the_wrong_shape_never_reach_a_caller() -> None:
    batcher = MicroBatcher(lambda texts: np.zeros(len(texts) + 1), timeout_ms=LONG_MS)
    assert await failure(batcher) is FailureKind.MODEL
    await batcher.aclose()


async def test_a_cancelled_prompt_is_not_scored() -> None:
    model = Model()
    model.hold()
    async with batching(model) as batcher:
        first = await start(batcher, "0")
        await model.is_entered()
        cancelled, kept = await start(batcher, "1"), await start(batcher, "2")
        cancelled.cancel()
        model.gate.set()
        assert list(await asyncio.gather(first, kept)) == [0, 2]
        with pytest.raises(asyncio.CancelledError):
            await cancelled
    assert model.batches == [["0"], ["2"]]


async def test_a_prompt_cancelled_just_before_its_batch_starts_is_not_scored() -> None:
    model = Model()
    async with batching(model) as batcher:
        (await start(batcher, "1")).cancel()
        assert await batcher.score("2") == 2
    assert model.batches == [["2"]]


async def test_prompts_that_gave_up_leave_their_place_to_others() -> None:
    model = Model()
    model.hold()
    async with batching(model, max_pending=2) as batcher:
        first = await start(batcher, "0")
        await model.is_entered()
        for _ in range(2):
            gone = [await start(batcher, "1"), await start(batcher, "2")]
            for task in gone:
                task.cancel()
            await asyncio.gather(*gone, return_exceptions=True)
        kept = await start(batcher, "3")
        model.gate.set()
        assert list(await asyncio.gather(first, kept)) == [0, 3]


async def test_a_prompt_cancelled_while_it_is_scored_disturbs_nobody() -> None:
    model = Model()
    model.hold()
    async with batching(model) as batcher:
        cancelled, kept = await start(batcher, "1"), await start(batcher, "2")
        await model.is_entered()
        cancelled.cancel()
        model.gate.set()
        assert await kept == 2
        assert await batcher.score("3") == 3


async def test_a_hung_model_fails_new_prompts_at_once_until_it_returns() -> None:
    model = Model()
    model.hold()
    async with batching(model, timeout_ms=30.0) as batcher:
        assert await failure(batcher, "0") is FailureKind.LATE
        while await failure(batcher, "1") is not FailureKind.STUCK:
            pass
        # None of these waits: the event loop gets no turn in which a timeout could pass.
        kinds = await asyncio.wait_for(asyncio.gather(*(failure(batcher, "1") for _ in range(1000))), 60)
        assert set(kinds) == {FailureKind.STUCK}
        model.gate.set()
        while True:
            try:
                assert await batcher.score("5") == 5
                break
            except ScoringError:
                await asyncio.sleep(0.01)


async def test_a_hung_model_does_not_keep_the_batcher_from_closing() -> None:
    model = Model()
    model.hold()
    batcher = MicroBatcher(model, timeout_ms=20.0)
    bulk = asyncio.create_task(batcher.score_many(["1", "2"]))
    await model.is_entered()
    await batcher.aclose()
    outcomes = await bulk
    assert {outcome.kind for outcome in outcomes if isinstance(outcome, ScoringError)} == {FailureKind.STUCK}
    assert not model.gate.is_set()
    model.gate.set()


async def test_each_prompt_is_late_at_its_own_time() -> None:
    model = Model()
    model.hold()
    async with batching(model, timeout_ms=20.0) as batcher:
        first = await start(batcher, "0")
        await model.is_entered()
        batcher._timeout_s = LONG_MS / 1000
        second = await start(batcher, "1")
        with pytest.raises(ScoringError, match="no score within"):
            await first
        assert not second.done()
        model.gate.set()
        assert await second == 1


async def test_what_was_scored_is_not_kept_until_it_would_have_been_late() -> None:
    async with batching(Model()) as batcher:
        for _ in range(10):
            await asyncio.gather(*(batcher.score(str(number)) for number in range(10)))
        assert len(batcher._deadlines) <= 10


async def test_more_than_max_pending_are_refused() -> None:
    model = Model()
    model.hold()
    async with batching(model, max_pending=2) as batcher:
        first = await start(batcher, "0")
        await model.is_entered()
        waiting = [await start(batcher, "1"), await start(batcher, "2")]
        assert await failure(batcher, "3") is FailureKind.OVERLOADED
        model.gate.set()
        assert await asyncio.gather(first, *waiting) == [0, 1, 2]


async def test_the_newest_go_first_when_not_all_can_be_in_time() -> None:
    model = Model()
    model.hold()
    # So many that they need more than half of the timeout, at the 2.5 ms a prompt guessed before measuring.
    async with batching(model, timeout_ms=20_000.0, max_batch=1) as batcher:
        first = await start(batcher, "0")
        await model.is_entered()
        count = int(20_000 / 2.5)
        tasks = [asyncio.ensure_future(batcher.score(str(number))) for number in range(1, count)]
        await asyncio.sleep(0)
        model.gate.set()
        await asyncio.gather(first, tasks[-1])
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert model.batches[1] == [str(count - 1)]


async def test_score_many_keeps_order_and_reports_failures_one_by_one() -> None:
    model = Model()
    async with batching(model, max_batch=4) as batcher:
        outcomes = await batcher.score_many([*map(str, range(20)), "bad", "21"])
        assert await batcher.score_many([]) == []
    assert outcomes[:20] == list(range(20))
    assert isinstance(outcomes[20], ScoringError)
    assert outcomes[21] == 21
    assert max(map(len, model.batches)) == 4


async def test_single_prompts_take_turns_with_score_many() -> None:
    model = Model()
    model.hold()
    async with batching(model, max_batch=2) as batcher:
        bulk = asyncio.create_task(batcher.score_many(["10", "11", "12", "13", "14", "15"]))
        await model.is_entered()
        singles = [await start(batcher, str(number)) for number in range(1, 4)]
        model.gate.set()
        await asyncio.gather(bulk, *singles)
    assert model.batches == [["10", "11"], ["1", "2"], ["12", "13"], ["3"], ["14", "15"]]


async def test_several_score_many_do_not_starve_single_prompts() -> None:
    model = Model()
    model.hold()
    async with batching(model, max_batch=1) as batcher:
        bulks = [asyncio.create_task(batcher.score_many([bulk] * 4)) for bulk in ("10", "20", "30")]
        await model.is_entered()
        single = await start(batcher, "1")
        model.gate.set()
        await asyncio.gather(single, *bulks)
    assert model.batches[1] == ["1"]


async def test_score_many_gives_up_on_a_hung_model() -> None:
    model = Model()
    model.hold()
    async with batching(model, bulk_patience_s=0.02) as batcher:
        with pytest.raises(ScoringError) as raised:
            await batcher.score_many(["1"])
        assert raised.value.kind is FailureKind.STUCK


async def test_score_many_can_be_cancelled() -> None:
    model = Model()
    model.hold()
    async with batching(model, max_batch=1) as batcher:
        bulk = asyncio.create_task(batcher.score_many(["1", "2"]))
        await model.is_entered()
        bulk.cancel()
        with pytest.raises(asyncio.CancelledError):
            await bulk
        model.gate.set()
        assert await batcher.score("3") == 3
    assert ["2"] not in model.batches


async def test_score_many_cancelled_while_it_waits_is_not_scored() -> None:
    model = Model()
    model.hold()
    async with batching(model) as batcher:
        first = await start(batcher, "0")
        await model.is_entered()
        bulk = asyncio.create_task(batcher.score_many(["1", "2"]))
        await asyncio.sleep(0)
        bulk.cancel()
        with pytest.raises(asyncio.CancelledError):
            await bulk
        model.gate.set()
        assert await first == 0
        assert await batcher.score("3") == 3
    assert model.batches == [["0"], ["3"]]


async def test_closing_finishes_what_waits_and_refuses_what_comes() -> None:
    model = Model()
    model.hold()
    batcher = MicroBatcher(model, timeout_ms=LONG_MS, batch_target_ms=1e9, max_batch=1)
    waiting = [await start(batcher, "1"), await start(batcher, "2")]
    bulk = asyncio.create_task(batcher.score_many(["3", "4"]))
    await model.is_entered()
    closing = asyncio.create_task(batcher.aclose())
    await asyncio.sleep(0)
    assert await failure(batcher) is FailureKind.CLOSED
    with pytest.raises(ScoringError, match="closed"):
        await batcher.score_many(["5"])
    model.gate.set()
    await closing
    assert await asyncio.gather(*waiting) == [1, 2]
    assert await bulk == [3, 4]
    await batcher.aclose()


async def test_closing_ends_the_thread() -> None:
    before = threading.active_count()
    model = Model()
    async with batching(model) as batcher:
        await batcher.score("1")
        assert threading.active_count() == before + 1
    for thread in threading.enumerate():
        if thread.name in model.threads:
            thread.join(30)
    assert threading.active_count() == before


async def test_a_chunk_is_not_forgotten_when_every_single_prompt_just_gave_up() -> None:
    """Who gives up in the turn of the loop that chooses the next batch is still listed as waiting then."""
    loop = asyncio.get_running_loop()
    single: list[asyncio.Task[float]] = []

    class GivesUpAtTheEnd(Model):
        def __call__(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
            scores = super().__call__(texts)
            if texts == ["1"]:
                # Runs one turn later, just before the batcher chooses.
                loop.call_soon_threadsafe(lambda: loop.call_soon(single[0].cancel))
            return scores

    model = GivesUpAtTheEnd()
    async with batching(model, bulk_patience_s=2.0) as batcher:
        model.hold()
        first = asyncio.create_task(batcher.score_many(["1"]))
        await model.is_entered()
        second = asyncio.create_task(batcher.score_many(["2"]))
        single.append(await start(batcher, "3"))
        model.gate.set()
        # The loop stands still until the thread has reported, so that all happens in the same turn.
        time.sleep(0.2)
        assert await first == [1.0]
        assert await second == [2.0]
        assert single[0].cancelled()
