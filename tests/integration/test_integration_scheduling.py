"""Preemption, fair share and KV reservation, as set on the command line of a real server."""

from support.messages import inference
from support.server_process import Connection, StartServer
from support.slots import occupied
from support.submit_stream import History, SubmitStream

ONE_SLOT = ("--replay", "--max-sequences", "1", "--time-scale", "10")


async def short_after_long(address: str) -> History:
    """A short request comes while a long one has the only slot."""
    async with Connection(address) as connection, SubmitStream(connection.scheduler) as stream:
        await stream.send(inference("long", output=600))
        await stream.until_all("tokens", ["long"])
        await stream.send(inference("short", output=2))
        return await stream.finish()


async def test_a_long_request_yields_to_a_short_one_and_resumes(start_server: StartServer) -> None:
    for mode in ("recompute", "swap"):
        server = start_server(*ONE_SLOT, "--policy", "srtf", "--preemption", mode)
        history = await short_after_long(server.address)
        assert history.order_of("finished") == ["short", "long"]
        assert history.result("long").preemptions == 1
        assert history.result("long").output_tokens == 600
        assert history.result("short").preemptions == 0


async def test_it_keeps_its_slot_if_the_margin_is_not_met(start_server: StartServer) -> None:
    options = ("--policy", "srtf", "--preemption", "recompute", "--preemption-margin", "1e9")
    history = await short_after_long(start_server(*ONE_SLOT, *options).address)
    assert history.order_of("finished") == ["long", "short"]


async def two_tenants(address: str) -> list[str]:
    """Tenant a sends six requests that look short, then b two that look long; the order of their ends."""
    async with Connection(address) as connection, SubmitStream(connection.scheduler) as stream:
        async with occupied(connection):
            sent = [(f"a{n}", "a", 2) for n in range(6)] + [(f"b{n}", "b", 40) for n in range(2)]
            for name, tenant, words in sent:
                await stream.send(inference(name, words=words, output=5, tenant=tenant))
            await stream.until_all("queued", [name for name, _, _ in sent])
        return (await stream.finish()).order_of("finished")


async def test_tenants_take_turns_unless_told_otherwise(start_server: StartServer) -> None:
    fair = await two_tenants(start_server(*ONE_SLOT, "--policy", "ranking").address)
    assert {fair[0][0], fair[1][0]} == {"a", "b"}
    assert "b1" in fair[:6]
    unfair = await two_tenants(start_server(*ONE_SLOT, "--policy", "ranking", "--no-fair-share").address)
    assert unfair[-2:] == ["b0", "b1"]


async def test_reserving_for_the_whole_answer_leaves_nobody_to_evict(start_server: StartServer) -> None:
    """A KV cache of 960 tokens does not quite hold two prompts with answers of 480."""
    for reservation, expected in (("none", True), ("max", False)):
        server = start_server("--replay", "--time-scale", "50", "--kv-blocks", "60", "--policy", "fcfs",
                              "--kv-reservation", reservation)  # fmt: skip
        async with Connection(server.address) as connection, SubmitStream(connection.scheduler) as stream:
            for n in range(2):
                await stream.send(inference(f"r{n}", output=480, max_tokens=480))
            await stream.finish()
            stats = await connection.stats()
        assert (stats.preemptions_total > 0) is expected
