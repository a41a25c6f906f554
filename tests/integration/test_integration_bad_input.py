"""Whatever a client sends: a clear error for it, and nothing for anybody else."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from itertools import count
from typing import Any, cast

import grpc
import pytest
from grpc import StatusCode
from support.messages import PROMPT_MARKER, code, inference, reason, rich_status, violated_fields
from support.server_process import CHANNEL_OPTIONS, Connection, ServerProcess
from support.submit_stream import SubmitStream

from rankserve.v1 import ranker_pb2
from rankserve.v1 import scheduler_pb2 as pb

SCHEDULER = "/rankserve.v1.SchedulerService"
RANKER = "/rankserve.v1.RankerService"
MIB = 1 << 20

_names = count()


def chat(*turns: tuple[str, str]) -> pb.ChatMessages:
    return pb.ChatMessages(messages=[pb.ChatMessage(role=role, content=content) for role, content in turns])


def sampling(**fields: Any) -> pb.SamplingParams:
    return pb.SamplingParams(**{"max_tokens": 10, **fields})


# The field that the refusal names -> what was sent in it.
BAD_REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "no prompt": ("prompt", {"prompt": None}),
    "empty prompt": ("prompt", {"prompt": ""}),
    "whitespace prompt": ("prompt", {"prompt": " \n\t\u00a0\u2003 "}),
    "1 MiB prompt": ("prompt", {"prompt": PROMPT_MARKER * (MIB // len(PROMPT_MARKER))}),
    "prompt beyond the model": ("prompt", {"prompt": f"{PROMPT_MARKER} " * 8000, "sampling": sampling()}),
    "max_tokens 0": ("sampling.max_tokens", {"sampling": sampling(max_tokens=0)}),
    "max_tokens beyond the model": ("sampling.max_tokens", {"sampling": sampling(max_tokens=8192)}),
    "largest max_tokens": ("sampling.max_tokens", {"sampling": sampling(max_tokens=2**32 - 1)}),
    "no id": ("id", {"id": ""}),
    "id with a space": ("id", {"id": "a b"}),
    "id with a line end": ("id", {"id": "a\n"}),
    "id too long": ("id", {"id": "a" * 129}),
    "id not ASCII": ("id", {"id": "é"}),
    "priority too high": ("priority", {"priority": 1001}),
    "priority too low": ("priority", {"priority": -(2**31)}),
    "temperature NaN": ("sampling.temperature", {"sampling": sampling(temperature=float("nan"))}),
    "temperature infinite": ("sampling.temperature", {"sampling": sampling(temperature=float("inf"))}),
    "temperature negative": ("sampling.temperature", {"sampling": sampling(temperature=-0.1)}),
    "top_p 0": ("sampling.top_p", {"sampling": sampling(top_p=0.0)}),
    "top_p NaN": ("sampling.top_p", {"sampling": sampling(top_p=float("nan"))}),
    "17 stop sequences": ("sampling.stop", {"sampling": sampling(stop=["."] * 17)}),
    "tenant too long": ("tenant", {"tenant": "t" * 129}),
    "deadline beyond a week": ("deadline_ms", {"deadline_ms": 2**64 - 1}),
    "17 metadata entries": ("metadata", {"metadata": {str(n): "" for n in range(17)}}),
    "large metadata": ("metadata", {"metadata": {"k": "v" * 256}}),
    "replayed length 0": ("replay_output_tokens", {"replay_output_tokens": 0}),
    "replayed prompt beyond the model": ("prompt", {"replay_input_tokens": 2**32 - 1}),
    "empty chat": ("chat.messages", {"chat": chat()}),
    "chat without a user turn": ("chat.messages", {"chat": chat(("system", "Be brief."))}),
    "chat with an empty user turn": ("chat.messages", {"chat": chat(("user", " "))}),
    "chat with an unknown role": ("chat.messages", {"chat": chat(("user", "hi"), ("robot", "hi"))}),
    "1 MiB chat": ("prompt", {"chat": chat(*[("user", "word " * 4096)] * 52)}),
}


def bad_request(fields: dict[str, Any]) -> pb.InferenceRequest:
    request = inference(f"bad-{next(_names)}")
    if "chat" in fields or fields.get("prompt", "") is None:
        request.ClearField("prompt")
    request.MergeFrom(pb.InferenceRequest(**fields))
    for name in fields.keys() & {"id", "prompt"}:
        if fields[name] is not None:
            setattr(request, name, fields[name])
    return request


@pytest.fixture
async def bystander(slow: Connection, slow_server: ServerProcess) -> AsyncIterator[SubmitStream]:
    """A stream of another client. It must not notice anything of what the test does."""
    async with Connection(slow_server.address) as other, SubmitStream(other.scheduler) as stream:
        running, after = f"bystander-{next(_names)}", f"bystander-{next(_names)}"
        await stream.send(inference(running, output=8000))
        await stream.until_all("tokens", [running])
        yield stream
        tokens = stream.history.tokens(running)
        await stream.send(inference(after, output=2))
        await stream.until(lambda history: history.tokens(running) > tokens and after in history.ended)
        await other.scheduler.CancelRequest(pb.CancelRequestRequest(request_id=running))
        history = await stream.finish()
    assert history.result(after).output_tokens == 2
    assert code(history.failure(running).status) is StatusCode.CANCELLED
    assert slow_server.alive


async def test_generate_refuses_every_bad_request(slow: Connection, bystander: SubmitStream) -> None:
    for name, (field, fields) in BAD_REQUESTS.items():
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await read_to_end(slow.scheduler.Generate(pb.GenerateRequest(request=bad_request(fields))))
        assert refused.value.code() is StatusCode.INVALID_ARGUMENT, name
        status = rich_status(refused.value)
        assert reason(status) == "INVALID_REQUEST", name
        assert violated_fields(status) == [field], name


async def test_a_bad_request_on_a_stream_fails_alone(slow: Connection, bystander: SubmitStream) -> None:
    async with SubmitStream(slow.scheduler) as stream:
        good_ids = []
        sent = {}
        for name, (field, fields) in BAD_REQUESTS.items():
            request = bad_request(fields)
            # An id that is too long comes back cut.
            sent[request.id[:128]] = (name, field)
            good_ids.append(f"good-{next(_names)}")
            await stream.send(request, inference(good_ids[-1], output=2))
        history = await stream.finish()
    assert history.ids_with["finished"] == set(good_ids)
    assert history.by_id.keys() == sent.keys() | set(good_ids)
    for request_id, (name, field) in sent.items():
        assert history.kinds(request_id) == ["failed"], name
        status = history.failure(request_id).status
        assert code(status) is StatusCode.INVALID_ARGUMENT, name
        assert violated_fields(status) == [field], name
        assert field in status.message, name


async def test_many_large_refusals_at_once_fit_through_the_stream(
    slow: Connection, bystander: SubmitStream
) -> None:
    # Each refusal carries its id back, cut to what an id may be.
    ids = [f"{n}{'x' * MIB}" for n in range(8)]
    async with SubmitStream(slow.scheduler) as stream:
        await stream.send(*(inference(request_id) for request_id in ids), inference("good-one", output=2))
        history = await stream.finish()
    assert history.ids_with["failed"] == {request_id[:128] for request_id in ids}
    assert history.ids_with["finished"] == {"good-one"}


@pytest.mark.parametrize(
    ("method", "data"),
    [
        (f"{SCHEDULER}/GetStats", b"\xff\xff\xff"),
        (f"{SCHEDULER}/GetRequest", b"\x0a\x7fcut short"),
        (f"{SCHEDULER}/CancelRequest", b"\x0a\x02\xff\xfe"),  # not UTF-8
        (f"{SCHEDULER}/Generate", b"\x0a\x02\x0a\x05"),
        (f"{SCHEDULER}/Submit", b"\x0a\x02\x0a\x05"),
        (f"{RANKER}/Score", b"\x0a\x7fcut short"),
        (f"{RANKER}/ListRankerVersions", b"\xff\xff\xff"),
        (f"{RANKER}/ActivateRankerVersion", b"\xff\xff\xff"),
        ("/grpc.health.v1.Health/Check", b"\xff\xff\xff"),
    ],
)
def test_bytes_that_are_no_message_are_an_invalid_argument(
    slow_server: ServerProcess, method: str, data: bytes
) -> None:
    error = error_of_sending(slow_server, method, data)
    assert error.code() is StatusCode.INVALID_ARGUMENT
    assert "protobuf" in (error.details() or "")


def test_unknown_methods_are_unimplemented(slow_server: ServerProcess) -> None:
    assert error_of_sending(slow_server, f"{SCHEDULER}/Nope", b"").code() is StatusCode.UNIMPLEMENTED


def error_of_sending(server: ServerProcess, method: str, data: bytes) -> grpc.Call:
    """Calls a method with these bytes for a message."""
    with grpc.insecure_channel(server.address, options=CHANNEL_OPTIONS) as raw_channel:
        channel: Any = raw_channel
        if method.endswith("/Submit"):
            answer = channel.stream_stream(method)(iter([data]))
        elif method.endswith("/Generate"):
            answer = channel.unary_stream(method)(data)
        else:
            answer = map(channel.unary_unary(method), [data])
        with pytest.raises(grpc.RpcError) as refused:
            list(answer)
        return cast("grpc.Call", refused.value)


async def read_to_end(call: AsyncIterable[object]) -> None:
    async for _ in call:
        pass


async def test_bytes_that_are_no_message_end_their_stream_and_free_its_requests(
    slow: Connection, bystander: SubmitStream
) -> None:
    # Silent while it runs: nothing but the broken message can tell the server that the stream is over.
    running = inference("before-the-garbage", output=8000, result_only=True)
    channel: Any = slow.channel
    call = channel.stream_stream(f"{SCHEDULER}/Submit")()
    await call.write(pb.SubmitRequest(request=running).SerializeToString())
    await slow.until_stats(lambda stats: stats.running == 2)
    await call.write(b"\xff\xff\xff")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await read_to_end(call)
    assert refused.value.code() is StatusCode.INVALID_ARGUMENT
    await slow.until_stats(lambda stats: stats.running == 1)
    state = await slow.scheduler.GetRequest(pb.GetRequestRequest(request_id="before-the-garbage"))
    assert code(state.failure.status) is StatusCode.CANCELLED


async def test_bytes_that_are_no_message_end_a_stream_while_its_events_are_sent(
    slow: Connection, slow_server: ServerProcess
) -> None:
    # A status that is sent while a response is being written gets lost: the client waits forever.
    def broken_stream(number: int) -> StatusCode:
        requests = [inference(f"sent-{number}-{n}", output=8000) for n in range(3)]
        good = pb.SubmitRequest(requests=requests).SerializeToString()
        call = submit(iter([good, b"\x0a\x7fcut" + b"x" * 100_000]), timeout=20)
        with pytest.raises(grpc.RpcError) as refused:
            list(call)
        return cast("grpc.Call", refused.value).code()

    # Not grpc.aio's: it can lose the status itself, of a call that ends while it writes.
    with grpc.insecure_channel(slow_server.address, options=CHANNEL_OPTIONS) as channel:
        submit: Any = channel.stream_stream(f"{SCHEDULER}/Submit")
        codes = await asyncio.gather(*(asyncio.to_thread(broken_stream, number) for number in range(16)))
    assert set(codes) == {StatusCode.INVALID_ARGUMENT}


async def test_messages_beyond_4_mib_fail_only_their_own_call(
    slow: Connection, bystander: SubmitStream
) -> None:
    prompt = f"{PROMPT_MARKER} " * (5 * MIB // (len(PROMPT_MARKER) + 1))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await slow.ranker.Score(ranker_pb2.ScoreRequest(prompts=[prompt]))
    assert refused.value.code() is StatusCode.RESOURCE_EXHAUSTED
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await read_to_end(
            slow.scheduler.Generate(pb.GenerateRequest(request=inference("huge", prompt=prompt)))
        )
    assert refused.value.code() is StatusCode.RESOURCE_EXHAUSTED
    async with SubmitStream(slow.scheduler) as stream:
        await stream.send(inference("before-the-huge", output=8000))
        await stream.until_all("tokens", ["before-the-huge"])
        await stream.send(inference("huge", prompt=prompt))
        assert await stream.ended() is StatusCode.RESOURCE_EXHAUSTED
    await slow.until_stats(lambda stats: stats.running == 1)


@pytest.mark.parametrize(
    ("prompts", "field"),
    [
        ([], "prompts"),
        (["one"] * 1025, "prompts"),
        (["one", ""], "prompts[1]"),
        (["one", "two", " \n "], "prompts[2]"),
        (["one", "x" * MIB], "prompts[1]"),
    ],
)
async def test_score_refuses_bad_prompts(slow: Connection, prompts: list[str], field: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await slow.ranker.Score(ranker_pb2.ScoreRequest(prompts=prompts))
    assert refused.value.code() is StatusCode.INVALID_ARGUMENT
    assert violated_fields(rich_status(refused.value)) == [field]


@pytest.mark.parametrize("token", ["-1", "x", "²", "٣", "1" * 5000])
async def test_a_page_token_that_is_none_is_refused(slow: Connection, token: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await slow.scheduler.ListRequests(pb.ListRequestsRequest(page_token=token))
    assert refused.value.code() is StatusCode.INVALID_ARGUMENT
    assert violated_fields(rich_status(refused.value)) == ["page_token"]


async def test_requests_at_the_limits_are_served(slow: Connection) -> None:
    request = inference(
        "A-z_0.9:" + "x" * 120,
        output=2,
        prompt=PROMPT_MARKER,
        sampling=sampling(max_tokens=8192 - 2, temperature=0.0, top_p=1.0, stop=["."] * 16, seed=2**64 - 1),
        priority=1000,
        tenant="t" * 128,
        deadline_ms=7 * 24 * 3600 * 1000,
        metadata={f"{n:02}": "v" * 254 for n in range(16)},
    )
    async with SubmitStream(slow.scheduler) as stream:
        await stream.send(request)
        history = await stream.finish()
    assert history.result(request.id).output_tokens == 2
    assert history.result(request.id).metadata == request.metadata
