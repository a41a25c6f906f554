"""The simulated batch's steps: blocks held first, prefixes found again, a shared prefix."""

import pytest
from support.requests import make_profile, make_request

from rankserve.server.engines.simulated.batch import SimulatedBatch
from rankserve.server.engines.simulated.kv_blocks import KvBlockPool
from rankserve.server.scheduling.policies import Fcfs
from rankserve.server.scheduling.scheduler import Scheduler
from rankserve.server.simulation.virtual_server import VirtualServer


def test_nobody_is_admitted_in_a_step_that_evicted() -> None:
    """Two requests fill 8 blocks; one is evicted when both need a fifth, and a third one fits at once."""
    server = VirtualServer(Scheduler(Fcfs()), SimulatedBatch(make_profile(kv_blocks=8, max_model_len=128)))
    server.submit(make_request(f"r{n}", prompt_tokens=63, replay_output_tokens=40) for n in range(2))
    server.step()
    small = make_request("small", arrival_s=-1.0, prompt_tokens=1, replay_output_tokens=1)
    server.step()
    server.submit([small])
    server.step()
    assert server.scheduler.preemptions_total == 1
    assert server.started == ["r0", "r1"]
    server.step()
    assert server.started == ["r0", "r1", "small"]


def test_a_freed_block_list_is_first_in_first_out_and_keeps_leading_blocks_longest() -> None:
    pool = KvBlockPool(10, 16, prefix_caching=True)
    assert pool.try_hold("a", 4 * 16)
    assert pool.try_hold("b", 4 * 16)
    pool.release("a", computed_tokens=4 * 16 - 1)
    # Two blocks that were nobody's come first, then those of a, its last one first.
    assert pool.try_hold("c", 3 * 16)
    pool.check_integrity()
    # a's tokens 0 to 62 were computed: 3 whole blocks, all of which are left.
    assert pool.take_again("a", 5 * 16) == 3
    assert pool.free == 0
    pool.release("a", computed_tokens=3 * 16)
    assert pool.try_hold("d", 2 * 16)
    assert pool.take_again("a", 5 * 16) == 1
    pool.check_integrity()


def test_without_prefix_caching_nothing_is_found_again() -> None:
    pool = KvBlockPool(10, 16)
    assert pool.try_hold("a", 64)
    pool.release("a", computed_tokens=64)
    assert pool.take_again("a", 64) == 0
    assert pool.free == 10


@pytest.mark.parametrize(("prefix_caching", "recomputed"), [(False, 48 + 17), (True, 1)])
def test_a_preempted_request_recomputes_what_is_not_in_the_cache(
    prefix_caching: bool, recomputed: int
) -> None:
    """It is evicted with 48 + 17 tokens, of which 64 have KV, in 4 whole blocks, and resumes at once."""
    profile = make_profile(prefix_caching=prefix_caching, per_prefill_token_ms=1.0)
    batch = SimulatedBatch(profile)
    request = make_request("r", prompt_tokens=48)
    request.output_tokens = 16
    batch.admit(request, output_length=40)
    step = batch.begin_step()
    assert step is not None
    batch.end_step(step)
    batch.preempt(request)
    assert (request.kv_tokens, request.decoding, batch.kv.used) == (0, False, 0)
    request.preemptions += 1
    batch.admit(request, output_length=40)
    again = batch.begin_step()
    assert again is not None
    assert again.duration_ms == pytest.approx(1000 + recomputed)


def test_a_prefix_that_all_share_is_held_and_computed_once() -> None:
    profile = make_profile(
        shared_prefix_tokens=32, per_prefill_token_ms=1.0, kv_blocks=100, max_model_len=1600
    )
    batch = SimulatedBatch(profile)
    assert batch.kv.total == 98
    batch.admit(make_request("r", prompt_tokens=40), output_length=2)
    assert batch.kv.used == 1
    step = batch.begin_step()
    assert step is not None
    assert step.duration_ms == pytest.approx(1000 + 8)
    room = batch.room()
    assert (room.kv_blocks, room.kv_blocks_shared, room.kv_blocks_reserved) == (97, 2, 0)


def test_decoding_attends_to_what_has_kv_already() -> None:
    batch = SimulatedBatch(make_profile(per_context_token_ms=1.0))
    batch.admit(make_request("r", prompt_tokens=30), output_length=9)
    first = batch.begin_step()
    assert first is not None
    batch.end_step(first)
    assert batch.hold_blocks(lambda: None)
    second = batch.begin_step()
    assert second is not None
    assert second.duration_ms == pytest.approx(1000 + 30)


def test_a_request_alone_in_too_small_a_cache_is_a_fault() -> None:
    batch = SimulatedBatch(make_profile(kv_blocks=2, max_model_len=32))
    batch.admit(make_request("r", prompt_tokens=32), output_length=9)
    step = batch.begin_step()
    assert step is not None
    batch.end_step(step)
    with pytest.raises(RuntimeError, match="more KV blocks than there are"):
        batch.hold_blocks(lambda: None)
