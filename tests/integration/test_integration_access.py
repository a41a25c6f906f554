"""Who may call, what a server tells of itself, and what it never prints."""

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from support.messages import PROMPT_MARKER, inference, rich_status, violated_fields
from support.server_process import SERVICES, Connection, ServerProcess, StartServer
from support.submit_stream import SubmitStream

from rankserve.v1 import ranker_pb2
from rankserve.v1 import scheduler_pb2 as pb

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


async def read_to_end(call: AsyncIterable[object]) -> None:
    async for _ in call:
        pass


def reflect(connection: Connection, metadata: Metadata) -> AsyncIterable[object]:
    stub = reflection_pb2_grpc.ServerReflectionStub(connection.channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    answers: AsyncIterable[object] = stub.ServerReflectionInfo(iter([request]), metadata=metadata)
    return answers


# One method of each kind, and those that tell or change most.
CALLS: dict[str, Callable[[Connection, Metadata], Awaitable[object]]] = {
    "GetStats": lambda c, m: c.scheduler.GetStats(pb.GetStatsRequest(), metadata=m),
    "Score": lambda c, m: c.ranker.Score(ranker_pb2.ScoreRequest(prompts=["one"]), metadata=m),
    "ActivateRankerVersion": lambda c, m: c.ranker.ActivateRankerVersion(
        ranker_pb2.ActivateRankerVersionRequest(name="toy"), metadata=m
    ),
    "Generate": lambda c, m: read_to_end(
        c.scheduler.Generate(pb.GenerateRequest(request=inference("guarded", output=None)), metadata=m)
    ),
    "Submit": lambda c, m: read_to_end(
        c.scheduler.Submit(iter([pb.SubmitRequest(request=inference("guarded", output=None))]), metadata=m)
    ),
    "reflection": lambda c, m: read_to_end(reflect(c, m)),
}


@pytest.mark.parametrize("call", CALLS)
async def test_without_the_token_nothing_is_answered(guarded: Connection, call: str) -> None:
    accepted = (await guarded.scheduler.GetStats(pb.GetStatsRequest(), metadata=WITH_TOKEN)).accepted_total
    for metadata in (
        (),
        (("authorization", "Bearer wrong-horse-battery-staple"),),
        (("authorization", TOKEN),),
        (("authorization", f"Bearer {TOKEN} "),),
        (("authorization", f"Bearer {TOKEN[:-1]}"),),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await CALLS[call](guarded, metadata)
        assert refused.value.code() is StatusCode.UNAUTHENTICATED
        assert TOKEN not in (refused.value.details() or "")
    stats = await guarded.scheduler.GetStats(pb.GetStatsRequest(), metadata=WITH_TOKEN)
    assert stats.accepted_total == accepted


@pytest.mark.parametrize("call", CALLS)
async def test_with_the_token_everything_is(guarded: Connection, call: str) -> None:
    await CALLS[call](guarded, WITH_TOKEN)


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


async def test_reflection_lists_the_services(guarded: Connection) -> None:
    async for answer in reflect(guarded, WITH_TOKEN):
        assert isinstance(answer, reflection_pb2.ServerReflectionResponse)
        names = {service.name for service in answer.list_services_response.service}
        assert names >= {*SERVICES, "grpc.health.v1.Health"}
        return
    pytest.fail("no answer")


@pytest.mark.parametrize("field", ["replay_output_tokens", "replay_input_tokens"])
async def test_replay_is_refused_unless_it_is_enabled(guarded: Connection, field: str) -> None:
    request = pb.GenerateRequest(request=inference("replays", output=None, **{field: 5}))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await read_to_end(guarded.scheduler.Generate(request, metadata=WITH_TOKEN))
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
    server = start_server("--token-file", str(token_file), "--replay", "--time-scale", "100")
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
        score: Any = connection.channel.unary_unary(f"/{SERVICES[1]}/Score")
        for metadata in (WITH_TOKEN, (("authorization", f"Bearer {TOKEN}x"),)):
            with pytest.raises(grpc.aio.AioRpcError):
                await score(b"\x0a\x7f" + PROMPT_MARKER.encode(), metadata=metadata)
    assert server.stop() == 0
    # It did log what went wrong.
    assert "prompt_scored_neutral" in server.stderr
    printed = server.stderr + server.rest_of_stdout + repr(server.listening)
    assert PROMPT_MARKER not in printed
    assert TOKEN not in printed
