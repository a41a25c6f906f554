"""Endpoints that do not keep to the API: no request is lost to them, and none goes on for ever."""

import asyncio
import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
from support.scripted_llm import DONE, Asked, ScriptedLLM, delta, event, scripted, text, usage
from support.served_llm import ServedLLM, served

from rankserve.server import watched_files
from rankserve.server.engines.contract import EngineSettings
from rankserve.server.engines.openai import client as client_module
from rankserve.server.engines.openai.breaker import Circuit
from rankserve.server.engines.openai.engine import OpenAIEngine
from rankserve.server.errors import AnswerLost, EngineLost, EngineRefused
from rankserve.v1 import scheduler_pb2 as pb


async def never(asked: Asked) -> None:
    await asyncio.Event().wait()


async def two_words(asked: Asked) -> None:
    await asked.send(text("one "), text("two", "stop"), usage(3, 2), DONE)


async def error(asked: Asked) -> None:
    await asked.send(b"{}", status="500 Internal Server Error")


async def only(llm: ScriptedLLM, **fields: object) -> ServedLLM:
    """One request to it alone, until it has ended."""
    async with served(llm.base_url, within_s=10) as server:
        server.submit("r", **fields)
        await server.until_ended()
        return server


async def test_a_stream_that_is_complete_is_the_answer_though_it_does_not_say_why_it_ends() -> None:
    async def answer(asked: Asked) -> None:
        await asked.send(*(text(f"w{i} ") for i in range(asked.body["max_tokens"])), DONE)

    async with scripted(answer) as llm:
        finished = (await only(llm, max_tokens=5)).finished("r")
        assert (finished.finish_reason, finished.output_tokens) == ("length", 5)
        assert len(llm.asked) == 1


@pytest.mark.parametrize("after", [event(b"{"), usage(-1, 2), usage(2**40, 2**40), event({"error": {}})])
async def test_what_comes_after_the_end_of_an_answer_takes_nothing_from_it(after: bytes) -> None:
    async def answer(asked: Asked) -> None:
        await asked.send(text("one "), text("two", "stop"), after)

    async with scripted(answer) as llm:
        server = await only(llm, max_tokens=5)
        assert server.answers["r"].text == "one two"
        assert server.finished("r").finish_reason == "stop"
        assert server.finished("r").input_tokens < 100
        assert len(llm.asked) == 1


async def test_an_answer_that_breaks_off_at_its_full_length_has_ended() -> None:
    async def answer(asked: Asked) -> None:
        await asked.send(*(text(f"w{i} ") for i in range(5)))

    async with scripted(answer) as llm:
        finished = (await only(llm, max_tokens=5)).finished("r")
        assert (finished.finish_reason, finished.output_tokens) == ("length", 5)
        assert len(llm.asked) == 1


async def test_who_streams_without_end_is_cut() -> None:
    async def answer(asked: Asked) -> None:
        await asked.begin()
        while True:
            await asked.write(text("x" * 10_000))

    async with scripted(answer) as llm:
        server = await only(llm, max_tokens=3)
        assert server.finished("r").finish_reason == "length"
        assert len(server.answers["r"].text) < 100_000


async def test_an_answer_that_the_llm_gave_up_is_gone_on_with() -> None:
    async def answer(asked: Asked) -> None:
        if len(llm.asked) == 1:
            await asked.send(text("one "), text("", "abort"), DONE)
        else:
            assert asked.body["prompt"].endswith("one ")
            await asked.send(text("two", "stop"), DONE)

    async with scripted(answer) as llm:
        server = await only(llm)
        assert server.answers["r"].text == "one two"
        assert server.finished("r").finish_reason == "stop"


async def test_a_connection_that_is_kept_after_the_end_holds_nobody_up() -> None:
    async def answer(asked: Asked) -> None:
        await asked.send(text("one", "stop"), usage(3, 1))
        await never(asked)

    async with scripted(answer) as llm:
        # Would it wait for the connection's end, it would wait for ever.
        assert (await only(llm)).finished("r").finish_reason == "stop"
        assert len(llm.asked) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        lambda asked: asked.send(b"data: x", content_encoding="gzip"),
        lambda asked: asked.send(gzip.compress(b"data: x"), content_encoding="gzip", content_type="a/b"),
        lambda asked: asked.send(b"data: \xff\n\n", content_type="text/event-stream; charset=hex"),
        lambda asked: asked.send(
            status="429 Too Many Requests", retry_after="Mon, 01 Jan 2024 00:00:00 +9999999999999999"
        ),
        lambda asked: asked.send(status="302 Found", location="/v1/elsewhere"),
    ],
    ids=["no-gzip", "not-events", "charset", "retry-after", "redirect"],
)
async def test_after_a_response_that_cannot_be_the_request_is_sent_again(
    wrong: Callable[[Asked], asyncio.Future[None]],
) -> None:
    async def answer(asked: Asked) -> None:
        await (wrong(asked) if len(llm.asked) == 1 else two_words(asked))

    async with scripted(answer) as llm:
        server = await only(llm)
        assert server.answers["r"].text == "one two"
        assert len(llm.asked) == 2


async def test_events_without_data_and_errors_that_are_null_are_none() -> None:
    async def answer(asked: Asked) -> None:
        await asked.send(
            b"retry: 3000\n\n", text("one "), b": ping\n\n", text("two", "stop", error=None), DONE
        )

    async with scripted(answer) as llm:
        server = await only(llm)
        assert server.answers["r"].text == "one two"
        assert len(llm.asked) == 1


async def test_an_error_that_drips_does_not_hold_its_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_GET_S", 0.2)

    async def answer(asked: Asked) -> None:
        if len(llm.asked) > 1:
            await two_words(asked)
        await asked.begin("500 Internal Server Error")
        while True:
            await asked.write(b"x")
            await asyncio.sleep(0.05)

    async with scripted(answer) as llm:
        assert (await only(llm)).answers["r"].text == "one two"


async def test_a_key_that_the_endpoint_repeats_is_not_passed_on(tmp_path: Path) -> None:
    async def answer(asked: Asked) -> None:
        said = b'{"error": {"message": "bad request; you sent %s"}}'
        await asked.send(said % asked.headers["authorization"].encode(), status="400 Bad Request")

    key = tmp_path / "key"
    key.write_text("sk-secret")
    async with scripted(answer) as llm, served(llm.base_url, api_key_file=key) as server:
        server.submit("r")
        await server.until_ended()
        refusal = server.failed("r").error
        assert isinstance(refusal, EngineRefused)
        assert "bad request; you sent bearer ***" in str(refusal)


async def test_no_cookie_is_sent_back() -> None:
    async def answer(asked: Asked) -> None:
        await asked.send(text("one", "stop"), DONE, set_cookie="LB=replica-3; Path=/")

    async with scripted(answer) as llm, served(llm.base_url) as server:
        for name in "ab":
            server.submit(name)
            await server.until_ended()
        assert [asked.headers.get("cookie") for asked in llm.asked] == [None, None]


@pytest.mark.parametrize("metrics", ["hangs", "cannot be"])
async def test_an_endpoint_whose_metrics_are_of_no_use_serves_all_the_same(
    metrics: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "_GET_S", 0.1)
    looked = 0

    async def get(asked: Asked) -> None:
        nonlocal looked
        looked += 1
        if metrics == "hangs":
            await never(asked)
        line = b'vllm:num_requests_running{engine="%d"} 1e308\n'
        await asked.send(line % 0, line % 1, b"vllm:num_requests_waiting 1\n", content_type="text/plain")

    async with (
        scripted(two_words, owned_by="vllm", get={"/metrics": get}) as llm,
        served(llm.base_url) as server,
    ):
        while looked < 5:
            await asyncio.sleep(0.05)
        server.submit("r")
        await server.until_ended()
        server.finished("r")
        (endpoint,) = server.engine.endpoints
        assert endpoint.breaker.state is Circuit.CLOSED
        assert endpoint.load is None


async def test_an_endpoint_that_fails_all_but_an_old_answer_gets_no_more_of_them() -> None:
    async def fails(asked: Asked) -> None:
        if len(failing.asked) > 1:
            await error(asked)
            return
        await asked.begin()
        while True:
            await asked.write(text("on "))
            await asyncio.sleep(0.005)

    async with (
        scripted(fails) as failing,
        scripted(two_words) as good,
        served(failing.base_url, good.base_url, max_sequences=8) as server,
    ):
        server.submit("old", max_tokens=100_000)
        await server.until_tokens("old", 3)
        new = [f"n{number}" for number in range(6)]
        for name in new:
            server.submit(name)
        await server.until_ended(*new)
        for name in new:
            server.finished(name)
        server.dispatcher.cancel("old")
        await server.until_ended()


async def test_half_open_it_is_tried_though_it_holds_requests_that_it_never_answered() -> None:
    async def answer(asked: Asked) -> None:
        await (never(asked) if len(llm.asked) <= 3 else two_words(asked))

    async def health(asked: Asked) -> None:
        await asked.send(status="200 OK" if well else "503 Service Unavailable")

    well = True
    async with (
        scripted(answer, get={"/health": health}) as llm,
        served(llm.base_url, dialect="llama.cpp") as server,
    ):
        (endpoint,) = server.engine.endpoints
        for number in range(3):
            server.submit(f"h{number}")
        await server.until(lambda: len(llm.asked) == 3)
        well = False
        await server.until(lambda: endpoint.breaker.state is Circuit.OPEN)
        well = True
        server.submit("new")
        await server.until_ended("new")
        server.finished("new")
        for number in range(3):
            server.dispatcher.cancel(f"h{number}")
        await server.until_ended()


async def test_a_chat_goes_on_where_it_can() -> None:
    """The other endpoint, empty as it is, cannot go on with an answer."""

    async def breaks(asked: Asked) -> None:
        if len(able.asked) == 1:
            await asked.send(delta("one "))
        else:
            assert asked.body["messages"][-1] == {"role": "assistant", "content": "one "}
            await asked.send(delta("two", "stop"), DONE)

    async with (
        scripted(breaks, owned_by="vllm") as able,
        scripted(never) as unable,
        served(able.base_url, unable.base_url, max_sequences=1) as server,
    ):
        chat = pb.ChatMessages(messages=[pb.ChatMessage(role="user", content="why")])
        server.submit("c", prompt=None, chat=chat)
        await server.until_ended()
        assert server.answers["c"].text == "one two"
        assert not unable.asked


async def test_a_chat_that_nobody_can_go_on_with_is_lost_by_the_llm_and_not_by_us() -> None:
    async def breaks(asked: Asked) -> None:
        await asked.send(delta("one "))

    async with (
        scripted(breaks) as llm,
        scripted(never) as other,
        served(llm.base_url, other.base_url, max_sequences=1) as server,
    ):
        chat = pb.ChatMessages(messages=[pb.ChatMessage(role="user", content="why")])
        server.submit("c", prompt=None, chat=chat)
        await server.until_ended()
        assert isinstance(server.failed("c").error, EngineLost)
        assert not isinstance(server.failed("c").error, AnswerLost)


async def test_what_is_too_long_for_one_goes_to_one_with_a_longer_context() -> None:
    async def refuses(asked: Asked) -> None:
        await asked.send(b'{"error": {"message": "too long"}}', status="400 Bad Request")

    async with (
        scripted(refuses, max_model_len=100) as short,
        scripted(two_words, max_model_len=999) as long,
        served(short.base_url, long.base_url, max_sequences=1) as server,
    ):
        server.submit("r")
        await server.until_ended()
        assert server.answers["r"].text == "one two"
        assert (len(short.asked), len(long.asked)) == (1, 1)
        long.answer = refuses
        server.submit("q")
        await server.until_ended()
        assert isinstance(server.failed("q").error, EngineRefused)
        assert (len(short.asked), len(long.asked)) == (2, 2)


async def test_who_comes_back_with_another_model_serves_that() -> None:
    async def not_found(asked: Asked) -> None:
        wrong = asked.body["model"] != llm.model
        await (asked.send(status="404 Not Found") if wrong else two_words(asked))

    async with scripted(not_found, model="old") as llm, served(llm.base_url) as server:
        assert server.engine.models == ("old",)
        llm.model = "new"
        server.submit("r")
        await server.until_ended()
        assert server.answers["r"].text == "one two"
        assert server.engine.models == ("new",)


async def test_a_key_is_read_again_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched_files, "INTERVAL_S", 0.02)
    key, pool = tmp_path / "llm.key", tmp_path / "pool.toml"
    async with scripted(two_words) as llm:
        written = f'[[endpoint]]\nurl = "{llm.base_url}"\napi_key_file = "llm.key"\n'
        key.write_text("first")
        pool.write_text(written)
        async with served(endpoint_file=pool) as server:
            key.write_text("second")
            pool.write_text(f"{written}weight = 2.0\n")
            await server.until(lambda: server.engine.endpoints[0].settings.weight == 2)
            server.submit("r")
            await server.until_ended()
            assert llm.asked[0].headers["authorization"] == "bearer second"


@pytest.mark.parametrize("bad", ['[[endpoint]]\nurl = "http://127.0.0.1:99999/v1"\n', "a = " + "[" * 20_000])
async def test_a_file_that_cannot_be_is_said_and_the_next_is_read(
    bad: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched_files, "INTERVAL_S", 0.02)
    pool = tmp_path / "pool.toml"
    async with scripted(two_words) as llm:
        written = f'[[endpoint]]\nurl = "{llm.base_url}"\n'
        pool.write_text(written)
        async with served(endpoint_file=pool) as server:
            pool.write_text(bad)
            await asyncio.sleep(0.2)
            pool.write_text(f"{written}weight = 2.0\n")
            await server.until(lambda: server.engine.endpoints[0].settings.weight == 2)


async def test_requests_for_a_model_that_is_gone_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched_files, "INTERVAL_S", 0.02)
    pool = tmp_path / "pool.toml"
    async with scripted(two_words, model="a") as a, scripted(never, model="b") as b:
        stays = f'[[endpoint]]\nurl = "{a.base_url}"\n'
        pool.write_text(f'{stays}[[endpoint]]\nurl = "{b.base_url}"\nmax_sequences = 1\n')
        async with served(endpoint_file=pool) as server:
            for name in ("running", "waiting"):
                server.submit(name, model="b")
            await server.until(lambda: len(b.asked) == 1)
            pool.write_text(stays)
            await server.until_ended("waiting")
            assert isinstance(server.failed("waiting").error, EngineLost)
            server.dispatcher.cancel("running")
            await server.until_ended()


def test_text_that_is_not_english_has_more_tokens() -> None:
    count = OpenAIEngine(EngineSettings(endpoint_urls="http://127.0.0.1:9/v1")).count_tokens
    assert (count("a" * 400), count("字" * 400), count("")) == (100, 400, 1)
