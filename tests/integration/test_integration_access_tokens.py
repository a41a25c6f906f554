"""Several tokens, their roles, tenants and quotas, and a token file that changes while the server runs."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import grpc
import pytest
from grpc import StatusCode
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from support import raw_http2
from support.messages import code, inference, reason, retry_delay_s, rich_status
from support.server_process import CHANNEL_OPTIONS, Connection, ServerProcess, StartServer
from support.submit_stream import SubmitStream
from support.token_files import ADMIN, ALL, OBSERVE, SUBMIT, TENANT_A, TENANT_B, bearer, write_tokens

from rankserve.v1 import scheduler_pb2 as pb

QUOTA = '[[tenant]]\nname = "b2"\nmax_waiting = 1'


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    return write_tokens(tmp_path / "tokens.toml", ADMIN, SUBMIT, OBSERVE, TENANT_A, TENANT_B, more=QUOTA)


@pytest.fixture
def server(start_server: StartServer, token_file: Path) -> ServerProcess:
    """Four slots and about 10 ms a token."""
    return start_server("--replay", "--max-sequences", "4", "--token-file", str(token_file))


@pytest.fixture
async def connection(server: ServerProcess) -> AsyncIterator[Connection]:
    async with Connection(server.address) as connection:
        yield connection
    assert server.alive
    for token in ALL:
        assert token not in server.stderr


async def refused(call: Awaitable[object]) -> tuple[StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await call
    return refusal.value.code(), reason(rich_status(refusal.value))


async def stats(connection: Connection, token: str) -> StatusCode:
    try:
        await connection.scheduler.GetStats(pb.GetStatsRequest(), metadata=bearer(token))
    except grpc.aio.AioRpcError as error:
        return error.code()
    return StatusCode.OK


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await condition():
            await asyncio.sleep(0.05)


async def test_a_revoked_token_opens_nothing_more_and_its_streams_go_on(
    connection: Connection, token_file: Path
) -> None:
    async with SubmitStream(connection.scheduler, bearer(SUBMIT)) as stream:
        await stream.send(inference("before", output=10))
        await stream.until_all("accepted", ["before"])
        write_tokens(token_file, ADMIN)

        async def revoked() -> bool:
            return await stats(connection, SUBMIT) is StatusCode.UNAUTHENTICATED

        await until(revoked)
        assert await stats(connection, ADMIN) is StatusCode.OK
        # What was let in stays in, until it ends.
        await stream.send(inference("after", output=10))
        history = await stream.finish()
    assert history.result("after").output_tokens == 10
    async with SubmitStream(connection.scheduler, bearer(SUBMIT)) as stream:
        assert await stream.ended() is StatusCode.UNAUTHENTICATED


async def test_a_new_token_counts_on_sighup_and_a_broken_file_changes_nothing(
    connection: Connection, server: ServerProcess, token_file: Path
) -> None:
    token_file.write_text(f'[[token]]\nname = "x"\ntoken = "{SUBMIT}"\nroles = ["sumbit"]')
    server.process.send_signal(signal.SIGHUP)

    async def complained() -> bool:
        return "token_file_unusable" in server.stderr

    await until(complained)
    assert "[[token]] 1: roles" in server.stderr
    assert await stats(connection, ADMIN) is StatusCode.OK
    write_tokens(token_file, OBSERVE)
    server.process.send_signal(signal.SIGHUP)

    async def revoked() -> bool:
        return await stats(connection, ADMIN) is StatusCode.UNAUTHENTICATED

    await until(revoked)
    assert await stats(connection, OBSERVE) is StatusCode.OK


async def test_a_tenant_sees_and_cancels_only_its_own(connection: Connection) -> None:
    scheduler = connection.scheduler
    async with (
        SubmitStream(scheduler, bearer(TENANT_A)) as mine,
        SubmitStream(scheduler, bearer(TENANT_B)) as theirs,
    ):
        await mine.send(inference("mine", output=2000))
        await theirs.send(inference("theirs", output=2000, tenant="b"))
        await mine.until_all("accepted", ["mine"])
        await theirs.until_all("accepted", ["theirs"])

        get = pb.GetRequestRequest(request_id="theirs")
        cancel = pb.CancelRequestRequest(request_id="theirs")
        not_found = (StatusCode.NOT_FOUND, "REQUEST_NOT_FOUND")
        assert await refused(scheduler.GetRequest(get, metadata=bearer(TENANT_A))) == not_found
        assert await refused(scheduler.CancelRequest(cancel, metadata=bearer(TENANT_A))) == not_found
        watch = pb.WatchRequest(positions=[pb.WatchPosition(request_id="theirs")])
        [answer] = [answer async for answer in scheduler.Watch(watch, metadata=bearer(TENANT_A))]
        assert code(answer.events[0].failed.status) is StatusCode.NOT_FOUND

        async def listed(token: str) -> set[tuple[str, str]]:
            page = await scheduler.ListRequests(pb.ListRequestsRequest(), metadata=bearer(token))
            return {(request.request_id, request.tenant) for request in page.requests}

        # A caller with one tenant need not name it.
        assert await listed(TENANT_A) == {("mine", "a")}
        assert await listed(TENANT_B) == {("theirs", "b")}
        assert await listed(OBSERVE) == await listed(ADMIN) == {("mine", "a"), ("theirs", "b")}
        assert (await scheduler.CancelRequest(cancel, metadata=bearer(TENANT_B))).cancelled
        await mine.send(
            inference("not-mine", tenant="b"), inference("not-mine-either", tenant="c", output=None)
        )
        await mine.until_ended("not-mine", "not-mine-either")
        for request_id in ("not-mine", "not-mine-either"):
            status = mine.history.failure(request_id).status
            assert (code(status), reason(status)) == (StatusCode.PERMISSION_DENIED, "NOT_PERMITTED")


async def test_the_id_and_body_of_another_tenants_request_do_not_give_its_answer(
    connection: Connection,
) -> None:
    async with SubmitStream(connection.scheduler, bearer(TENANT_A)) as mine:
        await mine.send(inference("shared"))
        await mine.finish()
    for tenant in ("b", "b2"):
        request = pb.GenerateRequest(request=inference("shared", tenant=tenant))
        call = connection.scheduler.Generate(request, metadata=bearer(TENANT_B))
        assert await refused(call.read()) == (StatusCode.ALREADY_EXISTS, "REQUEST_ID_IN_USE")


async def test_who_has_several_tenants_says_which(connection: Connection) -> None:
    request = pb.GenerateRequest(request=inference("whose"))
    call = connection.scheduler.Generate(request, metadata=bearer(TENANT_B))
    assert await refused(call.read()) == (StatusCode.PERMISSION_DENIED, "NOT_PERMITTED")


async def test_a_tenants_quota_is_that_of_the_file_also_after_it_changed(
    connection: Connection, token_file: Path
) -> None:
    async with SubmitStream(connection.scheduler, bearer(TENANT_B)) as stream:
        await stream.send(*(inference(f"runs-{n}", output=4000, tenant="b") for n in range(4)))
        await stream.until(lambda history: len(history.ids_with["tokens"]) == 4)
        await stream.send(*(inference(f"waits-{n}", tenant="b2") for n in range(3)))
        await stream.until_ended("waits-1", "waits-2")
        for n in (1, 2):
            status = stream.history.failure(f"waits-{n}").status
            assert (code(status), reason(status)) == (StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED")
            assert retry_delay_s(status) > 0
        write_tokens(token_file, TENANT_B, more=QUOTA.replace("= 1", "= 3"))

        async def revoked() -> bool:
            return await stats(connection, ADMIN) is StatusCode.UNAUTHENTICATED

        await until(revoked)
        await stream.send(*(inference(f"more-{n}", tenant="b2") for n in range(3)))
        await stream.until_ended("more-2")
        assert stream.history.ids_with["accepted"] >= {"waits-0", "more-0", "more-1"}


async def test_a_caller_holds_only_its_share_of_streams(start_server: StartServer, token_file: Path) -> None:
    limits = ("--max-open-streams", "3", "--max-open-streams-per-caller", "2")
    server = start_server("--replay", "--token-file", str(token_file), *limits)
    async with Connection(server.address) as connection:
        async with (
            SubmitStream(connection.scheduler, bearer(SUBMIT)) as one,
            SubmitStream(connection.scheduler, bearer(SUBMIT)) as two,
        ):
            for n, stream in enumerate((one, two)):
                await stream.send(inference(f"held-{n}"))
                await stream.until_ended(f"held-{n}")
            request = pb.GenerateRequest(request=inference("one-too-many"))
            call = connection.scheduler.Generate(request, metadata=bearer(SUBMIT))
            too_many = (StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS")
            assert await refused(call.read()) == too_many
            async with SubmitStream(connection.scheduler, bearer(TENANT_A)) as other:
                await other.send(inference("theirs"))
                await other.until_ended("theirs")
                call = connection.scheduler.Generate(request, metadata=bearer(ADMIN))
                assert await refused(call.read()) == too_many
            assert await stats(connection, SUBMIT) is StatusCode.OK

        async def room() -> bool:
            async with SubmitStream(connection.scheduler, bearer(SUBMIT)) as stream:
                await stream.half_close()
                return await stream.ended() is StatusCode.OK

        await until(room)


@pytest.mark.parametrize("path", [b"/\xff", b"/rankserve.v1.SchedulerService/GetStats\x00", b"/%ff", b""])
async def test_method_names_that_are_no_text_cost_nobody_else_anything(
    connection: Connection, server: ServerProcess, path: bytes
) -> None:
    async with SubmitStream(connection.scheduler, bearer(SUBMIT)) as stream:
        await stream.send(inference("beside", output=100))
        for _ in range(20):
            status = await raw_http2.grpc_status(server.address, path)
            assert status == StatusCode.UNAUTHENTICATED.value[0]
        assert (await stream.finish()).result("beside").output_tokens == 100


@pytest.mark.parametrize(
    "metadata",
    [
        [(b"authorization", b"Bearer \xff\xfe\x80" + ADMIN.encode())],
        [(b"authorization", b"Bearer " + ADMIN.encode() + b"\xff")],
        [(b"authorization", b"\xff")],
        [(b"authorization-bin", b"/////w")],
        [(b"x", b"\xff" * 5000)],
    ],
    ids=["not-utf8", "right-and-not-utf8", "one-byte", "binary", "other-key"],
)
async def test_metadata_that_is_no_text_is_no_token(
    connection: Connection, server: ServerProcess, metadata: list[tuple[bytes, bytes]]
) -> None:
    path = b"/rankserve.v1.SchedulerService/GetStats"
    status = await raw_http2.grpc_status(server.address, path, metadata)
    assert status == StatusCode.UNAUTHENTICATED.value[0]


async def test_metadata_that_grpc_cannot_read_ends_its_call_alone(
    connection: Connection, server: ServerProcess
) -> None:
    # gRPC answers by itself, with INTERNAL, before any of our code is asked.
    path = b"/rankserve.v1.SchedulerService/GetStats"
    for _ in range(20):
        assert await raw_http2.grpc_status(server.address, path, [(b"authorization-bin", b"!!!")]) != 0
    assert await stats(connection, ADMIN) is StatusCode.OK


async def test_more_metadata_than_the_limit_is_refused(start_server: StartServer, token_file: Path) -> None:
    server = start_server("--token-file", str(token_file), "--max-metadata-bytes", "4096")
    async with Connection(server.address) as connection:
        for size, expected in ((3000, StatusCode.OK), (5000, StatusCode.RESOURCE_EXHAUSTED)) * 5:
            metadata = (*bearer(ADMIN), ("x-filler", "x" * size))
            try:
                await connection.scheduler.GetStats(pb.GetStatsRequest(), metadata=metadata)
                found = StatusCode.OK
            except grpc.aio.AioRpcError as error:
                found = error.code()
            assert found is expected


async def test_who_asks_for_signs_of_life_too_often_is_cut_off(
    connection: Connection, server: ServerProcess
) -> None:
    pings = raw_http2.opening() + raw_http2.ping() * 20
    assert b"too_many_pings" in await raw_http2.exchange(server.address, pings, until=b"too_many_pings")
    assert await stats(connection, ADMIN) is StatusCode.OK


@pytest.mark.parametrize(
    ("setting", "token", "expected"),
    [
        ("all", OBSERVE, StatusCode.OK),
        ("all", None, StatusCode.UNAUTHENTICATED),
        ("off", ADMIN, StatusCode.UNIMPLEMENTED),
    ],
)
def test_reflection_for_all_or_nobody(
    start_server: StartServer, token_file: Path, setting: str, token: str | None, expected: StatusCode
) -> None:
    server = start_server("--token-file", str(token_file), "--reflection", setting)
    # Synchronous: grpc.aio's client says INTERNAL where a stream was refused before it had written.
    with grpc.insecure_channel(server.address, options=CHANNEL_OPTIONS) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        call = stub.ServerReflectionInfo(iter([request]), metadata=bearer(token))
        if expected is StatusCode.OK:
            [answer] = call
            assert answer.list_services_response.service
        else:
            with pytest.raises(grpc.RpcError):
                next(call)
        assert call.code() is expected
