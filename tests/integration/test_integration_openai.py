"""The real `openai` package against a real server: a changed base URL is all it takes."""

import asyncio
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from time import monotonic, sleep

import openai
import pytest
import trustme
from cryptography import x509
from openai.types.chat import ChatCompletionMessageParam
from support.messages import PROMPT_MARKER, answer_text, inference
from support.openai_clients import MODEL, async_client, client, prompt
from support.server_process import Connection, ServerProcess, StartServer
from support.slots import occupied
from support.submit_stream import SubmitStream

from rankserve.v1 import scheduler_pb2 as pb

# The simulated LLM draws lengths by seed: 8000 tokens for this one, more than a minute on one slot.
SEED_OF_A_LONG_ANSWER = 66893
TOKEN = "correct-horse-battery-staple"
HTTP = ("--http-port", "0", "--served-model-name", MODEL)
MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": prompt()}]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture(scope="module")
def fast_server(start_module_server: StartServer) -> ServerProcess:
    return start_module_server(*HTTP, "--time-scale", "100")


@pytest.fixture(scope="module")
def one_slot_server(start_module_server: StartServer) -> ServerProcess:
    """About 10 ms a token, and room for one request that runs and three that wait."""
    return start_module_server(
        *HTTP, "--replay", "--policy", "ranking", "--max-sequences", "1", "--max-waiting", "3"
    )


@pytest.fixture
async def one_slot(one_slot_server: ServerProcess) -> AsyncIterator[Connection]:
    """A connection to it; it holds nothing before and after the test."""
    async with Connection(one_slot_server.address) as connection:
        await connection.until_idle()
        yield connection
        await connection.until_idle()


@pytest.fixture
def api(fast_server: ServerProcess) -> Iterator[openai.OpenAI]:
    with client(fast_server) as api:
        yield api


def test_a_completion(api: openai.OpenAI) -> None:
    answer = api.completions.create(model=MODEL, prompt=prompt(words=5), max_tokens=8000)
    assert answer.usage is not None
    tokens = answer.usage.completion_tokens
    assert (answer.object, answer.model) == ("text_completion", MODEL)
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + tokens
    assert [(c.text, c.finish_reason) for c in answer.choices] == [(answer_text(tokens), "stop")]
    assert answer.id.startswith("cmpl-")
    assert answer._request_id is not None


def test_a_chat(api: openai.OpenAI) -> None:
    answer = api.chat.completions.create(model=MODEL, messages=MESSAGES, max_completion_tokens=1)
    (choice,) = answer.choices
    assert (answer.object, answer.model) == ("chat.completion", MODEL)
    assert (choice.message.role, choice.message.content) == ("assistant", answer_text(1))
    assert choice.finish_reason == "length"
    assert answer.id.startswith("chatcmpl-")


def test_models(api: openai.OpenAI) -> None:
    listed = [model.id for model in api.models.list()]
    assert listed[0] == MODEL
    assert len(listed) == 2
    for name in listed:
        assert api.models.retrieve(name).id == name
        assert api.completions.create(model=name, prompt=prompt(), max_tokens=1).model == name


def test_a_streamed_completion(api: openai.OpenAI) -> None:
    with api.completions.create(model=MODEL, prompt=prompt(), max_tokens=40, stream=True) as stream:
        chunks = list(stream)
    text = "".join(chunk.choices[0].text for chunk in chunks)
    assert text == answer_text(len(text.split()))
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")
    assert len({(chunk.id, chunk.created) for chunk in chunks}) == 1
    assert all(chunk.usage is None for chunk in chunks)


async def test_a_streamed_chat_with_usage(fast_server: ServerProcess) -> None:
    async with async_client(fast_server) as api:
        stream = await api.chat.completions.create(
            model=MODEL, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    first, *middle, end, usage = chunks
    assert (first.choices[0].delta.role, first.choices[0].delta.content) == ("assistant", "")
    text = "".join(chunk.choices[0].delta.content or "" for chunk in middle)
    assert end.choices[0].finish_reason == "stop"
    assert usage.choices == []
    assert usage.usage is not None
    assert text == answer_text(usage.usage.completion_tokens)
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_what_is_wrong_is_the_exception_that_openai_has_for_it(api: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as bad:
        api.completions.create(model=MODEL, prompt=prompt(), n=2)
    assert (bad.value.param, bad.value.code, bad.value.type) == (
        "n",
        "invalid_request",
        "invalid_request_error",
    )
    with pytest.raises(openai.BadRequestError) as long:
        api.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=100_000)
    assert long.value.param == "max_tokens"
    with pytest.raises(openai.NotFoundError) as missing:
        api.chat.completions.create(model="gpt-5", messages=MESSAGES)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        api.embeddings.create(model=MODEL, input="a")


async def test_the_same_id_is_the_same_request(fast_server: ServerProcess) -> None:
    headers = {"X-Request-Id": "job-1"}
    async with async_client(fast_server) as api, Connection(fast_server.address) as connection:
        before = (await connection.stats()).accepted_total
        answers = await asyncio.gather(
            *(
                api.completions.create(model=MODEL, prompt=prompt(), max_tokens=300, extra_headers=headers)
                for _ in range(5)
            )
        )
        assert len({answer.model_dump_json() for answer in answers}) == 1
        assert (await connection.stats()).accepted_total == before + 1
        with pytest.raises(openai.ConflictError) as other:
            await api.completions.create(model=MODEL, prompt=prompt(3), extra_headers=headers)
    assert other.value.code == "request_id_in_use"
    assert other.value.request_id == "job-1"


def test_only_those_with_the_token_are_answered(start_server: StartServer, tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    token_file.write_text(f"{TOKEN}\n")
    server = start_server(*HTTP, "--time-scale", "100", "--token-file", str(token_file))
    for wrong in ("none", TOKEN + "x", TOKEN[:-1]):
        with client(server, api_key=wrong) as api:
            with pytest.raises(openai.AuthenticationError) as refused:
                api.completions.create(model=MODEL, prompt=prompt())
            assert refused.value.code == "invalid_api_key"
            with pytest.raises(openai.AuthenticationError):
                api.models.list()
    with client(server, api_key=TOKEN) as api:
        assert api.completions.create(model=MODEL, prompt=prompt(), max_tokens=1).choices
    server.stop()
    assert TOKEN not in server.stderr


async def test_fifty_streams_at_once(fast_server: ServerProcess) -> None:
    async def one(api: openai.AsyncOpenAI, number: int) -> tuple[str, int]:
        stream = await api.chat.completions.create(
            model=MODEL,
            messages=MESSAGES,
            max_tokens=number + 1,
            stream=True,
            stream_options={"include_usage": True},
        )
        text, tokens = "", 0
        async for chunk in stream:
            text += "".join(choice.delta.content or "" for choice in chunk.choices)
            tokens = chunk.usage.completion_tokens if chunk.usage else 0
        return text, tokens

    async with async_client(fast_server) as api:
        answers = await asyncio.gather(*(one(api, number) for number in range(50)))
    for number, (text, tokens) in enumerate(answers):
        assert 1 <= tokens <= number + 1
        assert text == answer_text(tokens)


async def test_short_answers_start_before_long_ones(
    one_slot_server: ServerProcess, one_slot: Connection
) -> None:
    """By what the ranker makes of their prompts, and by priority before that."""
    started: list[str] = []

    async def one(api: openai.AsyncOpenAI, name: str, words: int, priority: int) -> None:
        stream = await api.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": prompt(words)}],
            max_tokens=3,
            stream=True,
            extra_body={"priority": priority},
        )
        async for chunk in stream:
            if not started or started[-1] != name:
                started.append(name)
            assert chunk.choices

    async with async_client(one_slot_server) as api:
        async with occupied(one_slot):
            jobs = []
            for name, words, priority in (("long", 30, 0), ("short", 3, 0), ("urgent", 40, -1)):
                jobs.append(asyncio.create_task(one(api, name, words, priority)))
                count = len(jobs)
                await one_slot.until_stats(lambda stats, count=count: stats.waiting == count)  # type: ignore[misc]
            await one_slot.until_stats(lambda stats: not stats.scoring)
        await asyncio.gather(*jobs)
    assert started == ["urgent", "short", "long"]


async def test_a_full_queue_is_a_rate_limit_that_clients_wait_for(
    one_slot_server: ServerProcess, one_slot: Connection
) -> None:
    async with async_client(one_slot_server) as api, SubmitStream(one_slot.scheduler) as stream:
        ids = [f"filler-{number}" for number in range(4)]
        await stream.send(inference(ids[0], output=8000))
        await stream.until_all("tokens", ids[:1])
        await stream.send(*(inference(request_id) for request_id in ids[1:]))
        await stream.until_all("accepted", ids)
        with pytest.raises(openai.RateLimitError) as full:
            await api.completions.create(model=MODEL, prompt=prompt())
        assert full.value.code == "queue_full"
        assert float(full.value.response.headers["retry-after-ms"]) > 0
        assert float(full.value.response.headers["retry-after"]) > 0
        patient = asyncio.create_task(
            api.with_options(max_retries=20).completions.create(model=MODEL, prompt=prompt(), max_tokens=1)
        )
        refused = (await one_slot.stats()).refused_total
        await one_slot.until_stats(lambda stats: stats.refused_total > refused)
        await one_slot.scheduler.CancelRequest(pb.CancelRequestRequest(request_id=ids[0]))
        assert (await patient).choices[0].text == answer_text(1)
        await stream.finish()


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_client_that_leaves_while_it_waits_is_forgotten_at_once(
    one_slot_server: ServerProcess, one_slot: Connection, streamed: bool
) -> None:
    before = (await one_slot.stats()).cancelled_total
    async with async_client(one_slot_server) as api, occupied(one_slot):
        asking = asyncio.create_task(api.completions.create(model=MODEL, prompt=prompt(), stream=streamed))
        await one_slot.until_stats(lambda stats: stats.waiting == 1)
        asking.cancel()
        await asyncio.wait({asking})
        stats = await one_slot.until_stats(lambda stats: stats.waiting == 0)
        assert (stats.cancelled_total, stats.running) == (before + 1, 1)


async def test_a_client_that_leaves_while_it_is_answered_frees_the_slot(
    one_slot_server: ServerProcess, one_slot: Connection
) -> None:
    before = (await one_slot.stats()).cancelled_total
    async with async_client(one_slot_server) as api:
        asking = asyncio.create_task(
            api.completions.create(model=MODEL, prompt=prompt(), max_tokens=8000, seed=SEED_OF_A_LONG_ANSWER)
        )
        await one_slot.until_stats(lambda stats: stats.running == 1)
        asking.cancel()
        await asyncio.wait({asking})
        assert (await one_slot.until_idle()).cancelled_total == before + 1


async def test_closing_a_stream_frees_the_slot(one_slot_server: ServerProcess, one_slot: Connection) -> None:
    before = (await one_slot.stats()).cancelled_total
    async with async_client(one_slot_server) as api:
        stream = await api.completions.create(
            model=MODEL, prompt=prompt(), max_tokens=8000, seed=SEED_OF_A_LONG_ANSWER, stream=True
        )
        assert (await anext(aiter(stream))).choices
        await stream.close()
        assert (await one_slot.until_idle()).cancelled_total == before + 1


def test_leaving_a_stream_frees_the_slot(one_slot_server: ServerProcess) -> None:
    """As does the synchronous client of a program that has seen enough: there is one slot for all three."""
    with client(one_slot_server) as api:
        for _ in range(3):
            with api.completions.create(
                model=MODEL, prompt=prompt(), max_tokens=8000, seed=SEED_OF_A_LONG_ANSWER, stream=True
            ) as stream:
                assert next(iter(stream)).choices


async def test_a_detached_request_outlives_its_client(
    one_slot_server: ServerProcess, one_slot: Connection
) -> None:
    async with async_client(one_slot_server) as api:

        async def ask() -> openai.types.Completion:
            return await api.completions.create(
                model=MODEL,
                prompt=prompt(),
                max_tokens=5,
                extra_body={"detached": True, "request_id": "detached-1"},
            )

        async with occupied(one_slot):
            asking = asyncio.create_task(ask())
            await one_slot.until_stats(lambda stats: stats.waiting == 1)
            asking.cancel()
            await asyncio.wait({asking})
            await asyncio.sleep(0.1)
            assert (await one_slot.stats()).waiting == 1
        answer = await ask()
        assert answer.id == "cmpl-detached-1"
        assert answer.usage is not None
        assert answer.choices[0].text == answer_text(answer.usage.completion_tokens)


async def test_a_passed_deadline_is_not_tried_again(
    one_slot_server: ServerProcess, one_slot: Connection
) -> None:
    async with async_client(one_slot_server, max_retries=5) as api, occupied(one_slot):
        before = await one_slot.stats()
        for streamed in (False, True):
            with pytest.raises(openai.InternalServerError) as late:
                await api.completions.create(
                    model=MODEL, prompt=prompt(), stream=streamed, extra_body={"deadline_ms": 50}
                )
            assert (late.value.status_code, late.value.code) == (504, "deadline_passed")
        after = await one_slot.stats()
        assert after.expired_total == before.expired_total + 2
        assert after.accepted_total == before.accepted_total + 2


async def test_on_a_shutdown_what_runs_is_finished_and_what_waits_is_told_to_go(
    start_server: StartServer,
) -> None:
    server = start_server(*HTTP, "--max-sequences", "1", "--policy", "fcfs")
    async with async_client(server) as api, Connection(server.address) as connection:
        stream = await api.completions.create(
            model=MODEL, prompt=prompt(), max_tokens=300, seed=SEED_OF_A_LONG_ANSWER, stream=True
        )
        waiting = [
            asyncio.create_task(api.completions.create(model=MODEL, prompt=prompt(), stream=streamed))
            for streamed in (False, True)
        ]
        await connection.until_stats(lambda stats: stats.waiting == 2)
        server.send(signal.SIGTERM)
        for refused in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(refused, openai.InternalServerError)
            assert (refused.status_code, refused.code) == (503, "draining")
        chunks = [chunk async for chunk in stream]
        assert chunks[-1].choices[0].finish_reason in ("stop", "length")
    assert server.stop() == 0


def test_with_mutual_tls_only_those_with_a_certificate_get_through(
    start_server: StartServer, tmp_path: Path
) -> None:
    authority = trustme.CA()
    ca, mine = tmp_path / "ca.pem", tmp_path / "mine.pem"
    authority.cert_pem.write_to_path(ca)
    authority.issue_cert("caller").private_key_and_cert_chain_pem.write_to_path(mine)

    def issue() -> trustme.LeafCert:
        leaf = authority.issue_cert("127.0.0.1")
        leaf.private_key_pem.write_to_path(tmp_path / "key.pem")
        leaf.cert_chain_pems[0].write_to_path(tmp_path / "certificate.pem")
        return leaf

    def serial_number() -> int:
        context = ssl.create_default_context(cafile=str(ca))
        context.load_cert_chain(mine)
        host, port = server.listening["http_address"].split(":")
        with (
            socket.create_connection((host, int(port))) as connection,
            context.wrap_socket(connection, server_hostname=host) as secure,
        ):
            certificate = secure.getpeercert(binary_form=True)
        assert certificate is not None
        return x509.load_der_x509_certificate(certificate).serial_number

    first = issue()
    options = ["--tls-certificate", "certificate.pem", "--tls-key", "key.pem", "--tls-client-ca", "ca.pem"]
    options[1::2] = [str(tmp_path / name) for name in options[1::2]]
    server = start_server(*HTTP, "--time-scale", "100", *options)
    url = f"https://{server.listening['http_address']}/v1"
    verify = ssl.create_default_context(cafile=str(ca))
    with (
        openai.OpenAI(
            base_url=url, api_key="none", max_retries=0, http_client=openai.DefaultHttpxClient(verify=verify)
        ) as stranger,
        pytest.raises(openai.APIConnectionError),
    ):
        stranger.models.list()
    with client(server) as in_clear, pytest.raises(openai.APIConnectionError):
        in_clear.models.list()
    verify.load_cert_chain(mine)
    with openai.OpenAI(
        base_url=url, api_key="none", http_client=openai.DefaultHttpxClient(verify=verify)
    ) as api:
        assert api.completions.create(model=MODEL, prompt=prompt(), max_tokens=1).choices
    issue()
    deadline_s = monotonic() + 30
    while serial_number() == serial_of(first):
        assert monotonic() < deadline_s, "a renewed certificate is not served"
        sleep(0.1)


def serial_of(leaf: trustme.LeafCert) -> int:
    return x509.load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes()).serial_number


def test_an_answer_outlives_a_restart(start_server: StartServer, tmp_path: Path) -> None:
    """With a journal, the same id and body get the same answer, which is not made again."""
    answers = []
    for _ in range(2):
        server = start_server(*HTTP, "--time-scale", "100", "--journal", str(tmp_path / "journal"))
        with client(server) as api:
            answers.append(
                api.completions.create(
                    model=MODEL, prompt=prompt(), max_tokens=300, extra_headers={"X-Request-Id": "job-1"}
                )
            )
        assert server.stop() == 0
    assert answers[0] == answers[1]
    assert '"accepted": 0' in server.stderr


def test_garbage_on_the_port_harms_nobody(fast_server: ServerProcess, api: openai.OpenAI) -> None:
    host, port = fast_server.listening["http_address"].split(":")
    for garbage in (
        b"\x00" * 1000,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /" + b"a" * 100_000,
        b"POST /v1/completions HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 999999999\r\n"
        b"content-type: application/json\r\n\r\n{",
        b"POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 50\r\n"
        b'content-type: application/json\r\n\r\n{"prompt": "' + PROMPT_MARKER.encode(),
    ):
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(garbage)
    assert api.completions.create(model=MODEL, prompt=prompt(), max_tokens=1).choices
