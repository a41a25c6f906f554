"""The engine that drives servers of the OpenAI API, against fake ones on loopback."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest
from support.served_llm import ServedLLM, served

from rankserve.server.engines.contract import EngineSettings
from rankserve.server.engines.fake import FakeEngine, FakeEngineSettings, FaultKind
from rankserve.server.engines.openai.engine import OpenAIEngine
from rankserve.server.errors import EngineLost, EngineRefused, InvalidRequest, RequestCancelled
from rankserve.server.scheduling.preemption import Preemption
from rankserve.server.scheduling.scheduler import SchedulerSettings
from rankserve.v1 import scheduler_pb2 as pb

FAST = {"ttft_s": 0.0, "itl_s": 0.0}
STEADY = {"ttft_s": 0.0, "itl_s": 0.005}


def fake(**settings: object) -> FakeEngine:
    return FakeEngine(FakeEngineSettings(**{**FAST, **settings}))  # type: ignore[arg-type]


@asynccontextmanager
async def one(
    *, engine: Mapping[str, object] | None = None, **settings: object
) -> AsyncIterator[tuple[FakeEngine, ServedLLM]]:
    async with fake(**(engine or {})) as llm, served(llm.base_url, **settings) as server:  # type: ignore[arg-type]
        yield llm, server


def chat(*contents: str) -> pb.ChatMessages:
    return pb.ChatMessages(messages=[pb.ChatMessage(role="user", content=content) for content in contents])


def whole_answer(server: ServedLLM, request_id: str) -> None:
    """The fake's answer from its first word to its last, each once."""
    answered = server.answers[request_id]
    words = answered.text.split()
    numbers = [int(word.rpartition(".")[2]) for word in words]
    assert numbers == list(range(len(words)))
    assert server.finished(request_id).output_tokens == answered.tokens


async def test_it_learns_what_it_drives() -> None:
    async with one(engine={"models": ("llama", "other"), "max_model_len": 1234}) as (_, server):
        assert server.engine.name == "openai/llama"
        assert server.engine.models == ("llama",)
        assert server.engine.capacity.max_model_len == 1234


async def test_without_anybody_there_it_does_not_start() -> None:
    engine = OpenAIEngine(EngineSettings(endpoint_urls="http://127.0.0.1:9/v1"))
    with pytest.raises(ValueError, match=r"nobody answers at http://127\.0\.0\.1:9/v1"):
        await engine.prepare()


async def test_a_url_without_its_v1_is_taken_for_the_likeliest_mistake() -> None:
    async with fake() as llm:
        engine = OpenAIEngine(EngineSettings(endpoint_urls=llm.base_url.removesuffix("/v1")))
        with pytest.raises(ValueError, match="usually end in /v1"):
            await engine.prepare()


async def test_a_model_that_it_does_not_have_is_refused_by_name() -> None:
    async with fake(models=("llama",)) as llm:
        engine = OpenAIEngine(EngineSettings(endpoint_urls=llm.base_url, model="gpt"))
        with pytest.raises(ValueError, match="has no model 'gpt'; it has: 'llama'"):
            await engine.prepare()


@pytest.mark.parametrize("tokens_per_chunk", [1, 3])
@pytest.mark.parametrize("dialect", ["vllm", "llama.cpp", "openai"])
async def test_tokens_are_what_the_llm_counts_and_not_its_chunks(dialect: str, tokens_per_chunk: int) -> None:
    async with one(engine={"tokens_per_chunk": tokens_per_chunk}, dialect=dialect) as (llm, server):
        for number in range(5):
            server.submit(f"r{number}", words=number + 2)
        server.submit("capped", words=9, max_tokens=3)
        await server.until_ended()
        for request_id in server.answers:
            whole_answer(server, request_id)
        assert server.finished("capped").finish_reason == "length"
        assert server.finished("capped").output_tokens == 3
        assert sum(record.tokens_sent for record in llm.requests) == server.dispatcher.counters.output_tokens


async def test_a_chat_is_sent_as_a_chat_with_its_sampling() -> None:
    async with one() as (llm, server):
        sampling = pb.SamplingParams(max_tokens=7, temperature=0.5, top_p=0.25, stop=["never"], seed=3)
        server.submit("c", prompt=None, chat=chat("why", "because"), sampling=sampling)
        await server.until_ended()
        (record,) = llm.requests
        assert record.path == "/v1/chat/completions"
        body = dict(record.body)
        assert body.pop("messages") == [
            {"role": "user", "content": "why"},
            {"role": "user", "content": "because"},
        ]
        assert body.pop("stream_options") == {"include_usage": True, "continuous_usage_stats": True}
        assert body == {
            "model": "fake-model",
            "stream": True,
            "max_tokens": 7,
            "temperature": 0.5,
            "top_p": 0.25,
            "stop": ["never"],
            "seed": 3,
        }


async def test_a_finished_request_tells_how_long_the_llm_took_its_prompt_to_be() -> None:
    async with one() as (_, server):
        server.submit("r", words=40)
        await server.until_ended()
        assert server.finished("r").input_tokens == 40


async def test_what_the_llm_refuses_fails_with_its_reason_and_nothing_else_does() -> None:
    async with one(engine={"max_model_len": 100}) as (_, server):
        server.submit("long", words=120, max_tokens=5)
        server.submit("short", max_tokens=5)
        await server.until_ended()
        error = server.failed("long").error
        assert isinstance(error, EngineRefused)
        assert "100" in str(error)
        whole_answer(server, "short")


async def test_a_cancelled_request_is_aborted_at_the_llm() -> None:
    async with one(engine={"mean_output_tokens": 1000.0, "sigma_output_tokens": 0.0, **STEADY}) as (
        llm,
        server,
    ):
        server.submit("r", max_tokens=1000)
        await server.until_tokens("r", 3)
        server.dispatcher.cancel("r")
        await server.until_ended()
        assert isinstance(server.failed("r").error, RequestCancelled)
        while llm.running:
            await asyncio.sleep(0.005)
        (record,) = llm.requests
        assert record.outcome == "aborted"


async def test_no_more_are_in_flight_than_there_are_slots_and_they_start_in_order() -> None:
    async with one(engine={"max_num_seqs": 2, "mean_output_tokens": 5.0, **STEADY}, max_sequences=2) as (
        llm,
        server,
    ):
        for number in range(12):
            server.submit(f"r{number}", words=number + 2)
        most = 0
        while server.dispatcher.live_requests():
            most = max(most, llm.running + llm.waiting)
            await server.take()
        assert most == 2
        words = [len(record.body["prompt"].split()) for record in llm.requests]
        assert words == sorted(words)


@pytest.mark.parametrize("fault", ["error", "cut", "error_event", "garbage", "no_done", "overloaded"])
@pytest.mark.parametrize("asked", ["text", "chat"])
async def test_what_goes_wrong_at_the_llm_neither_loses_nor_repeats_a_token(
    fault: FaultKind, asked: str
) -> None:
    async with one(engine={"mean_output_tokens": 20.0}) as (llm, server):
        llm.faults.set(fault, next_requests=3, retry_after_s=0)
        for number in range(6):
            prompt = {"prompt": None, "chat": chat(f"{number}")} if asked == "chat" else {"words": number + 2}
            server.submit(f"r{number}", **prompt)
        await server.until_ended()
        for request_id in server.answers:
            whole_answer(server, request_id)
        assert llm.faults.injected[fault] == 3


async def test_silence_ends_an_answer_and_another_goes_on_with_it() -> None:
    async with one(endpoint_timeout_s=0.2) as (llm, server):
        llm.faults.set("hang", next_requests=1)
        server.submit("r", max_tokens=50)
        await server.until_ended()
        whole_answer(server, "r")


async def test_a_chat_that_cannot_be_gone_on_with_ends_without_a_token_twice() -> None:
    async with one(engine={"mean_output_tokens": 20.0}, dialect="openai") as (llm, server):
        llm.faults.set("cut", next_requests=1, after_tokens=3)
        server.submit("c", prompt=None, chat=chat("why"))
        await server.until_ended()
        assert isinstance(server.failed("c").error, EngineLost)
        llm.faults.set("cut", next_requests=1, after_tokens=0)
        server.submit("d", prompt=None, chat=chat("why not"))
        await server.until_ended()
        whole_answer(server, "d")


async def test_a_request_that_is_lost_again_and_again_ends() -> None:
    async with one() as (llm, server):
        llm.faults.set("error", probability=1.0)
        server.submit("poison")
        await server.until_ended()
        assert isinstance(server.failed("poison").error, EngineLost)
        assert server.dispatcher.counters.failed == 1


@pytest.mark.parametrize(("priority", "sign"), [("lower-first", 1), ("higher-first", -1)])
async def test_the_order_is_handed_on_to_llms_that_order_by_priority(priority: str, sign: int) -> None:
    async with one(engine={"scheduling": "priority"}, engine_priority=priority) as (llm, server):
        for number, band in enumerate([5, 0, -5]):
            server.submit(f"r{number}", priority=band)
        await server.until_ended()
        given = [sign * record.body["priority"] for record in llm.requests]
        assert given == sorted(given)
        assert len(set(given)) == 3


async def test_by_default_no_priority_is_sent() -> None:
    async with one() as (llm, server):
        server.submit("r", priority=3)
        await server.until_ended()
        (record,) = llm.requests
        assert "priority" not in record.body


async def test_a_preempted_request_goes_on_where_it_was() -> None:
    scheduler = SchedulerSettings(preemption=Preemption(enabled=True))
    settings = {"mean_output_tokens": 60.0, "sigma_output_tokens": 0.0, **STEADY}
    async with one(engine=settings, max_sequences=1, scheduler=scheduler) as (llm, server):
        server.submit("long")
        await server.until_tokens("long", 5)
        server.submit("urgent", priority=-1, words=5)
        await server.until_ended()
        whole_answer(server, "long")
        whole_answer(server, "urgent")
        assert server.finished("long").preemptions == 1
        assert [record.outcome for record in llm.requests] == ["aborted", "finished", "finished"]


async def test_a_model_of_another_name_is_refused() -> None:
    async with one() as (_, server):
        with pytest.raises(InvalidRequest, match="drives 'fake-model'"):
            server.submit("r", model="gpt")
