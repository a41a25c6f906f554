"""Several replicas behind one client."""

import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from rankserve.client import (
    AsyncSchedulerClient,
    FailedPrecondition,
    InvalidRequest,
    RequestState,
    SchedulerClient,
    ServerState,
    TlsConfig,
)
from rankserve.client._target import Target
from rankserve.client.testing import FakeServer


def wait_for(condition: Callable[[], object]) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("it never came")


async def test_calls_are_spread_over_the_healthy(server: FakeServer) -> None:
    with FakeServer() as other:
        async with AsyncSchedulerClient([server.target, other.target]) as client:
            await client.wait_ready()
            for _ in range(40):
                await client.complete("Hello")
        assert server.requests
        assert other.requests
        with SchedulerClient([server.target, other.target]) as sync_client:
            server.drain()
            # The news takes a moment; a request that is faster is sent again elsewhere.
            taken = len(server.requests)
            for _ in range(20):
                assert sync_client.complete("Hello").text
            assert len(server.requests) == taken
            server.resume()
            wait_for(lambda: sync_client.complete("Hello") and len(server.requests) > taken)


def test_a_server_that_drains_still_answers_a_client_of_its_own(server: FakeServer) -> None:
    with SchedulerClient(server.target) as client:
        assert client.drain() == 0
        assert client.stats().state is ServerState.DRAINING
        client.resume()
        assert client.stats().state is ServerState.SERVING
        assert client.complete("Hello").text


async def test_the_admin_calls(server: FakeServer) -> None:
    server.hold()
    async with AsyncSchedulerClient(server.target) as client:
        async with client.submit() as stream:
            await stream.send_many([])
            assert await client.pause() == 0
            assert (await client.stats()).state is ServerState.PAUSED
            await client.resume()
        change = await client.set_policy("ranking")
        assert (change.previous, change.reordered) == ("fcfs", 0)
        with pytest.raises(FailedPrecondition):
            await client.set_policy("cost_aware")
        with pytest.raises(InvalidRequest):
            await client.set_policy("nonsense")
        assert (await client.stats()).policy == "ranking"
        assert (await client.load_ranker_version("fake", 1)).loaded


async def test_lists_come_page_by_page_and_can_be_narrowed(server: FakeServer) -> None:
    async with AsyncSchedulerClient(server.target) as client:
        for n in range(7):
            await client.complete("Hello there", id=f"r{n}", tenant="ab"[n % 2])
        listed = [summary async for summary in client.list_requests(page_size=2)]
        assert [summary.request_id for summary in listed] == [f"r{n}" for n in range(7)]
        assert (listed[0].tenant, listed[0].input_tokens, listed[0].output_tokens) == ("a", 2, 3)
        of_b = [summary.request_id async for summary in client.list_requests(tenant="b")]
        assert of_b == ["r1", "r3", "r5"]
        waiting = client.list_requests(states=[RequestState.WAITING])
        assert [summary async for summary in waiting] == []


async def test_stats_come_again_and_again(server: FakeServer) -> None:
    async with AsyncSchedulerClient(server.target) as client:
        seen = []
        async for stats in client.watch_stats(interval_ms=100):
            seen.append(stats.accepted_total)
            # On a busy machine several come before the first is read.
            if stats.accepted_total == seen[0]:
                await client.complete("Hello")
                continue
            break
        assert seen == sorted(seen)
        assert stats.ranker_accuracy[0].kendall_tau == 0.5
        with pytest.raises(InvalidRequest):
            await anext(client.watch_stats(interval_ms=1))
    with SchedulerClient(server.target) as sync_client:
        assert next(sync_client.watch_stats(interval_ms=100)).accepted_total >= seen[-1]


def test_what_changes_a_server_needs_a_client_of_that_server(server: FakeServer) -> None:
    with FakeServer() as other, SchedulerClient([server.target, other.target]) as client:
        for change in (client.drain, client.pause, client.resume):
            with pytest.raises(ValueError, match="its own address"):
                change()
        with pytest.raises(ValueError, match="its own address"):
            client.activate_ranker_version("fake", 1)


def test_targets() -> None:
    assert Target.parse("host:1").name == "host:1"
    assert not Target.parse("host:1").balanced
    assert Target.parse("dns:///host:1").balanced
    assert Target.parse(["host:1"]) == Target.parse("host:1")
    two = Target.parse(["127.0.0.1:1", "127.0.0.2:2"])
    assert (two.name, two.balanced, two.host) == ("ipv4:127.0.0.1:1,127.0.0.2:2", True, "")
    assert Target.parse(["[::1]:1", "[::1]:2"]).name == "ipv6:[::1]:1,[::1]:2"
    named = Target.parse(["localhost:1", "localhost:2"])
    assert named.host == "localhost"
    assert named.text == "localhost:1, localhost:2"


@pytest.mark.parametrize(
    ("targets", "problem"),
    [
        ([], "at least one"),
        (["a:1", "b"], "must be 'host:port'"),
        (["dns:///a:1", "b:1"], "must be 'host:port'"),
        (["127.0.0.1:1", "[::1]:1"], "all IPv4 or all IPv6"),
    ],
)
def test_targets_that_make_no_sense(targets: list[str], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        SchedulerClient(targets)


def test_several_hosts_over_tls_need_one_name() -> None:
    with pytest.raises(ValueError, match="server_name"):
        SchedulerClient(["127.0.0.1:1", "127.0.0.2:1"], tls=TlsConfig())
    SchedulerClient(["127.0.0.1:1", "127.0.0.2:1"], tls=TlsConfig(server_name="rankserve")).close()


def test_several_replicas_on_one_host_speak_tls(server: FakeServer) -> None:
    trustme = pytest.importorskip("trustme")
    import grpc

    ca = trustme.CA()
    certificate = ca.issue_cert("127.0.0.1")
    chain = b"".join(pem.bytes() for pem in certificate.cert_chain_pems)
    credentials = grpc.ssl_server_credentials([(certificate.private_key_pem.bytes(), chain)])
    tls = TlsConfig(root_certificates=ca.cert_pem.bytes())
    with (
        FakeServer(credentials=credentials) as one,
        FakeServer(credentials=credentials) as two,
        SchedulerClient([one.target, two.target], tls=tls) as client,
    ):
        for _ in range(40):
            client.complete("Hello")
        assert one.requests
        assert two.requests


def test_nothing_is_written_to_stderr() -> None:
    """gRPC warns of servers without a health service: the fake one has it."""
    code = (
        "from rankserve.client import SchedulerClient\n"
        "from rankserve.client.testing import FakeServer\n"
        "with FakeServer() as a, FakeServer() as b, SchedulerClient([a.target, b.target]) as client:\n"
        "    client.complete('Hello')\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stderr == ""
