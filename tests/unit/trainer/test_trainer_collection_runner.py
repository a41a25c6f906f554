"""A run: who is asked, when it stops by itself, what it writes, and what it says the rest will take."""

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rankserve.records.prompts import read_prompts
from rankserve.trainer.collection.answers import Answer
from rankserve.trainer.collection.collection import Collection
from rankserve.trainer.collection.errors import (
    CollectionError,
    EndpointError,
    PromptRefusedError,
    UnansweredError,
)
from rankserve.trainer.collection.estimate import Prices, estimate, render
from rankserve.trainer.collection.progress import Progress, describe
from rankserve.trainer.collection.prompts import Message, Prompt
from rankserve.trainer.collection.retries import Ask
from rankserve.trainer.collection.runner import Runner
from rankserve.trainer.collection.sampling import Api, Sampling

PROMPTS = [Prompt(f"p{i}", (Message("user", f"prompt number {i}"),)) for i in range(40)]
SAMPLING = Sampling("m", max_tokens=100, temperature=0.5)


@pytest.fixture
def collection(tmp_path: Path) -> Iterator[Collection]:
    with Collection(PROMPTS, SAMPLING, 3, tmp_path / "out.jsonl") as opened:
        yield opened


class Llm:
    """Answers with a length per sample; `fails` may raise instead."""

    def __init__(
        self, fails: Callable[[Prompt, int], Exception | None] = lambda prompt, sample: None
    ) -> None:
        self.fails = fails
        self.asked: list[tuple[str, int]] = []
        self.now = self.most = 0

    async def __call__(self, prompt: Prompt, sample: int) -> Answer:
        self.asked.append((prompt.id, sample))
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0)
        self.now -= 1
        if error := self.fails(prompt, sample):
            raise error
        length = 10 * (sample + 1) + int(prompt.id[1:])
        return Answer(min(length, 60), length >= 60, input_tokens=8, latency_s=2.0)


async def run(collection: Collection, ask: Ask, concurrency: int = 4, stop_after: int = 5) -> Progress:
    runner = Runner(
        ask,
        collection.log,
        concurrency=concurrency,
        stop_after=stop_after,
        on_progress=lambda progress: None,
    )
    await runner.run(list(collection.pending()))
    return runner.progress


async def test_every_sample_once_and_no_more_at_a_time_than_asked(collection: Collection) -> None:
    llm = Llm()
    progress = await run(collection, llm)
    assert sorted(llm.asked) == sorted((prompt.id, sample) for prompt in PROMPTS for sample in range(3))
    assert llm.most == 4
    assert (progress.answered, progress.left, progress.running) == (120, 0, 0)
    assert collection.tally().is_complete


async def test_what_is_written_is_what_training_reads(collection: Collection) -> None:
    await run(collection, Llm())
    assert collection.write() == 40
    first = json.loads(collection.output.read_text().splitlines()[0])
    assert first == {
        "id": "p0",
        "prompt": "prompt number 0",
        "lengths": [10, 20, 30],
        "censored": [False, False, False],
        "model": "m",
        "temperature": 0.5,
        "max_tokens": 100,
    }
    records = list(read_prompts(collection.output))
    assert [record.id for record in records] == [prompt.id for prompt in PROMPTS]
    assert records[35].output_lengths == (45, 55, 60)
    assert json.loads(collection.output.read_text().splitlines()[35])["censored"] == [False, False, True]
    assert [path.name for path in collection.output.parent.iterdir()].count("out.jsonl") == 1
    assert not list(collection.output.parent.glob(".unfinished*"))


async def test_parquet_holds_the_same(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra collect")
    rows = {}
    for name in ("out.jsonl", "out.parquet"):
        with Collection(PROMPTS, SAMPLING, 2, tmp_path / name) as collection:
            await run(collection, Llm())
            collection.write()
    rows = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert rows == [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]


async def test_more_samples_are_added_to_what_is_there(tmp_path: Path) -> None:
    for samples, asked in ((1, 40), (3, 80), (2, 0)):
        with Collection(PROMPTS, SAMPLING, samples, tmp_path / "out.jsonl") as collection:
            llm = Llm()
            await run(collection, llm)
            assert len(llm.asked) == asked
            collection.write()
        assert len(next(read_prompts(tmp_path / "out.jsonl")).output_lengths) == samples


async def test_a_refused_prompt_stops_nobody_and_is_not_asked_again(collection: Collection) -> None:
    llm = Llm(lambda prompt, sample: PromptRefusedError("HTTP 400: too long") if prompt.id == "p7" else None)
    progress = await run(collection, llm, concurrency=1)
    assert [asked for asked in llm.asked if asked[0] == "p7"] == [("p7", 0)]
    assert (progress.answered, progress.refused, progress.skipped, progress.left) == (117, 1, 2, 0)
    tally = collection.tally()
    assert tally.is_complete
    assert (tally.complete_prompts, tally.refused_prompts) == (39, 1)
    assert collection.refusals() == [("p7", "HTTP 400: too long")]
    assert collection.write() == 39


async def test_refusals_count_only_once_something_is_answered(collection: Collection) -> None:
    """Else a wrong setting, which every prompt is refused for, would end the collection for good."""
    llm = Llm(lambda prompt, sample: PromptRefusedError("HTTP 400: top_k unknown"))
    with pytest.raises(EndpointError, match=r"5 requests failed.*top_k unknown"):
        await run(collection, llm, concurrency=1)
    assert collection.refusals() == []

    few = Llm(lambda prompt, sample: PromptRefusedError("too long") if prompt.id in ("p0", "p1") else None)
    await run(collection, few, concurrency=1)
    assert collection.refusals() == [("p0", "too long"), ("p1", "too long")]


async def test_several_samples_of_a_refused_prompt_are_one_failure(collection: Collection) -> None:
    long = ("p4", "p5", "p6", "p7")
    llm = Llm(lambda prompt, sample: PromptRefusedError("too long") if prompt.id in long else None)
    progress = await run(collection, llm, concurrency=24, stop_after=5)
    assert progress.refused > 5
    assert [prompt_id for prompt_id, _ in collection.refusals()] == list(long)
    assert collection.log.path.read_text().count("too long") == 4
    assert collection.tally().is_complete


async def test_a_request_that_stays_unanswered_is_left_for_the_next_run(collection: Collection) -> None:
    progress = await run(
        collection,
        Llm(lambda prompt, sample: UnansweredError("HTTP 500") if (prompt.id, sample) == ("p3", 1) else None),
    )
    assert (progress.unanswered, progress.last_failure) == (1, "HTTP 500")
    assert [(prompt.id, sample) for prompt, sample in collection.pending()] == [("p3", 1)]
    assert not collection.tally().is_complete
    llm = Llm()
    await run(collection, llm)
    assert llm.asked == [("p3", 1)]


@pytest.mark.parametrize("error", [UnansweredError("HTTP 500"), EndpointError("HTTP 401")])
async def test_a_run_that_fails_too_often_stops_and_keeps_what_it_has(
    collection: Collection, error: Exception
) -> None:
    llm = Llm(lambda prompt, sample: error if int(prompt.id[1:]) >= 10 else None)
    with pytest.raises(EndpointError, match=str(error)):
        await run(collection, llm)
    assert collection.tally().samples == 30
    assert len(llm.asked) < 50
    assert collection.write() == 10


async def test_scattered_failures_do_not_stop_a_run(collection: Collection) -> None:
    llm = Llm(lambda prompt, sample: UnansweredError("HTTP 500") if sample == 1 else None)
    progress = await run(collection, llm)
    assert (progress.answered, progress.unanswered) == (80, 40)


def test_an_output_without_its_log_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").write_text("mine")
    with pytest.raises(CollectionError, match=r"out\.jsonl\.samples"):
        Collection(PROMPTS, SAMPLING, 1, tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_text() == "mine"


def test_an_output_of_an_unknown_format_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(CollectionError, match=r"\.parquet"):
        Collection(PROMPTS, SAMPLING, 1, tmp_path / "out.csv")
    assert list(tmp_path.iterdir()) == []


def test_conversations_need_the_chat_api(tmp_path: Path) -> None:
    talk = Prompt("t", (Message("user", "a"), Message("assistant", "b"), Message("user", "c")))
    with pytest.raises(CollectionError, match="--completions"):
        Collection([talk], replace(SAMPLING, api=Api.COMPLETIONS), 1, tmp_path / "out.jsonl")


def test_without_answers_the_estimate_is_the_cap(collection: Collection) -> None:
    figures = estimate(collection, concurrency=4, prices=Prices(1.0, 10.0))
    size = 3 * sum(prompt.size_bytes for prompt in PROMPTS)
    assert (figures.requests, figures.input_tokens, figures.output_tokens) == (120, round(size / 4), 12_000)
    assert (figures.output_tokens_low, figures.duration_s, figures.measured_prompts) == (None, None, 0)
    assert figures.cost == pytest.approx((round(size / 4) * 1.0 + 12_000 * 10.0) / 1e6)
    assert "--pilot" in render(figures)


async def test_the_estimate_comes_from_what_is_collected(collection: Collection) -> None:
    asked = [(prompt, 0) for prompt in PROMPTS[:20]]
    runner = Runner(Llm(), collection.log, concurrency=2, stop_after=5, on_progress=lambda progress: None)
    await runner.run(asked)
    figures = estimate(collection, concurrency=5, prices=Prices())
    # Lengths 10 to 29, mean 19.5; sample deviation sqrt(35).
    assert figures.requests == 100
    assert figures.output_tokens == 1950
    half = 100 * 1.96 * (35 / 20) ** 0.5
    assert (figures.output_tokens_low, figures.output_tokens_high) == (round(1950 - half), round(1950 + half))
    assert figures.duration_s == pytest.approx(100 * 2.0 / 5)
    assert figures.cost is None
    sizes = [prompt.size_bytes for prompt in PROMPTS]
    per_byte = 8 * 20 / sum(sizes[:20])
    assert figures.input_tokens == round((2 * sum(sizes[:20]) + 3 * sum(sizes[20:])) * per_byte)


def test_progress_for_people() -> None:
    progress = Progress(total=1000, answered=200, output_tokens=5000, elapsed_s=20.0, unanswered=3)
    assert describe(progress, 4, "HTTP 429") == (
        "5,000 tokens (250/s), 3 failed, 4 retries, the last after: HTTP 429"
    )
    assert describe(Progress(total=5), 0, "") == "0 tokens (0/s)"
