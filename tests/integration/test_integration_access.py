"""Who may call, what a server tells of itself, and what it never prints."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from support.messages import PROMPT_MARKER, inference, rich_status, violated_fields
from support.server_process import CHANNEL_OPTIONS, SERVICES, Connection, ServerProcess, StartServer
from support.submit_stream import SubmitStream

from rankserve.v1 import ranker_pb2
from rankserve.v1 import scheduler_pb2 as pb
from rankserve.v1.ranker_pb2_grpc import RankerServiceStub
from rankserve.v1.scheduler_pb2_grpc import SchedulerServiceStub

TOKEN = "correct-horse-battery-staple"
Metadata = tuple[tuple[str, str], ...]
WITH_TOKEN: Metadata = (("authorization", f"Bearer {TOKEN}"),)


@pytest.fixture(scope="module")
def guarded_server(
    start_module_server: StartServer, tmp_path_factory: pytest.TempPathFactory
) -> ServerProcess:
    """Wants a token, and does not replay."""
    token_file = tmp_path_factory.mktemp("token") / "token"
    token_file.write_text(f"{TOKEN}\n")
    return start_module_server("--token-file", str(token_file), "--time-scale", "100")


@pytest.fixture
async def guarded(guarded_server: ServerProcess) -> AsyncIterator[Connection]:
    async with Connection(guarded_server.address) as connection:
        yield connection


Call = Callable[[grpc.Channel, Metadata], object]


def get_stats(channel: grpc.Channel, metadata: Metadata) -> pb.GetStatsResponse:
    return SchedulerServiceStub(channel).GetStats(pb.GetStatsRequest(), metadata=metadata)


def score(channel: grpc.Channel, metadata: Metadata) -> object:
    return RankerServiceStub(channel).Score(ranker_pb2.ScoreRequest(prompts=["one"]), metadata=metadata)


def activate(channel: grpc.Channel, metadata: Metadata) -> object:
    request = ranker_pb2.ActivateRankerVersionRequest(name="toy")
    return RankerServiceStub(channel).ActivateRankerVersion(request, metadata=metadata)


def generate(channel: grpc.Channel, metadata: Metadata) -> object:
    request = pb.GenerateRequest(request=inference("guarded", output=None))
    return list(SchedulerServiceStub(channel).Generate(request, metadata=metadata))


def submit(channel: grpc.Channel, metadata: Metadata) -> object:
    request = pb.SubmitRequest(request=inference("guarded", output=None))
    return list(SchedulerServiceStub(channel).Submit(iter([request]), metadata=metadata))


def reflect(channel: grpc.Channel, metadata: Metadata) -> list[reflection_pb2.ServerReflectionResponse]:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    return list(stub.ServerReflectionInfo(iter([request]), metadata=metadata))


# Each kind of method. By the synchronous client: that of grpc.aio says INTERNAL where a stream was refused
# before it had written.
CALLS: tuple[Call, ...] = (get_stats, score, activate, generate, submit, reflect)


@pytest.fixture
def channel(guarded_server: ServerProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(guarded_server.address, options=CHANNEL_OPTIONS) as channel:
        yield channel


@pytest.mark.parametrize("call", CALLS)
def test_without_the_token_nothing_is_answered(channel: grpc.Channel, call: Call) -> None:
    accepted = get_stats(channel, WITH_TOKEN).accepted_total
    for metadata in (
        (),
        (("authorization", "Bearer wrong-horse-battery-staple"),),
        (("authorization", TOKEN),),
        (("authorization", f"Bearer {TOKEN}x"),),
        (("authorization", f"Bearer {TOKEN[:-1]}"),),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            call(channel, metadata)
        error = cast("grpc.Call", refused.value)
        assert error.code() is StatusCode.UNAUTHENTICATED
        assert TOKEN not in (error.details() or "")
    assert get_stats(channel, WITH_TOKEN).accepted_total == accepted


@pytest.mark.parametrize("call", CALLS)
def test_with_the_token_everything_is(channel: grpc.Channel, call: Call) -> None:
    assert call(channel, WITH_TOKEN)


def test_reflection_lists_the_services(channel: grpc.Channel) -> None:
    [answer] = reflect(channel, WITH_TOKEN)
    names = {service.name for service in answer.list_services_response.service}
    assert names >= {*SERVICES, "grpc.health.v1.Health"}


@pytest.mark.parametrize("service", ["", *SERVICES])
async def test_health_needs_no_token(guarded: Connection, service: str) -> None:
    health = health_pb2_grpc.HealthStub(guarded.channel)
    request = health_pb2.HealthCheckRequest(service=service)
    assert (await health.Check(request)).status == health_pb2.HealthCheckResponse.SERVING
    watch = health.Watch(request)
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()


async def test_health_of_an_unknown_service_is_not_found(guarded: Connection) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await health_pb2_grpc.HealthStub(guarded.channel).Check(health_pb2.HealthCheckRequest(service="nope"))
    assert refused.value.code() is StatusCode.NOT_FOUND


@pytest.mark.parametrize("field", ["replay_output_tokens", "replay_input_tokens"])
async def test_replay_is_refused_unless_it_is_enabled(guarded: Connection, field: str) -> None:
    request = pb.GenerateRequest(request=inference("replays", output=None, **{field: 5}))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await guarded.scheduler.Generate(request, metadata=WITH_TOKEN).read()
    assert refused.value.code() is StatusCode.INVALID_ARGUMENT
    assert violated_fields(rich_status(refused.value)) == [field]
    assert "--replay" in (refused.value.details() or "")


async def test_without_replay_the_llm_chooses_the_length(guarded: Connection) -> None:
    ids = [f"free-{n}" for n in range(20)]
    async with SubmitStream(guarded.scheduler, WITH_TOKEN) as stream:
        await stream.send(*(inference(request_id, output=None, max_tokens=30) for request_id in ids))
        history = await stream.finish()
    lengths = {history.result(request_id).output_tokens for request_id in ids}
    assert len(lengths) > 1
    assert max(lengths) <= 30


async def test_neither_prompts_nor_the_token_are_printed(start_server: StartServer, tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    token_file.write_text(TOKEN)
    server = start_server("--token-file", str(token_file), "--replay")
    prompts = [f"{PROMPT_MARKER} {word}" for word in ("one", "poison", "crash", "")]
    async with Connection(server.address) as connection:
        async with SubmitStream(connection.scheduler, WITH_TOKEN) as stream:
            for n, prompt in enumerate(prompts):
                chat = pb.ChatMessages(messages=[pb.ChatMessage(role="user", content=prompt)])
                await stream.send(
                    inference(f"text-{n}", prompt=prompt),
                    pb.InferenceRequest(id=f"chat-{n}", chat=chat),
                    inference(f"invalid-{n}", prompt=prompt, priority=5000),
                    inference(PROMPT_MARKER + " is no id"),
                )
            await stream.half_close()
            assert await stream.ended() is StatusCode.OK
        await connection.ranker.Score(ranker_pb2.ScoreRequest(prompts=prompts), metadata=WITH_TOKEN)
        send_bytes: Any = connection.channel.unary_unary(f"/{SERVICES[1]}/Score")
        for metadata in (WITH_TOKEN, (("authorization", f"Bearer {TOKEN}x"),)):
            with pytest.raises(grpc.aio.AioRpcError):
                await send_bytes(b"\x0a\x7f" + PROMPT_MARKER.encode(), metadata=metadata)
    assert server.stop() == 0
    # It did log what went wrong.
    assert "prompt_scored_neutral" in server.stderr
    printed = server.stderr + server.rest_of_stdout + repr(server.listening)
    assert PROMPT_MARKER not in printed
    assert TOKEN not in printed
