"""KV blocks set aside for answers: what admission leaves room for, and what that saves and costs."""

import math

import pytest
from support.requests import make_profile, make_request

from rankserve.server.engines.simulated.batch import SimulatedBatch
from rankserve.server.scheduling.budget import AdmissionBudget, EngineRoom
from rankserve.server.scheduling.policies import Fcfs
from rankserve.server.scheduling.reservation import KvReservation
from rankserve.server.scheduling.scheduler import Scheduler, SchedulerSettings
from rankserve.server.simulation.virtual_server import VirtualServer


@pytest.mark.parametrize(
    ("reservation", "p90", "tokens"),
    [
        (KvReservation.NONE, 50.0, 0),
        (KvReservation.PREDICTED, 50.2, 51),
        (KvReservation.PREDICTED, 500.0, 100),
        (KvReservation.PREDICTED, math.inf, 100),
        (KvReservation.MAX, 50.0, 100),
    ],
)
def test_how_many_tokens_are_expected(reservation: KvReservation, p90: float, tokens: int) -> None:
    request = make_request("r", max_tokens=100, expected_tokens_p90=p90)
    assert reservation.answer_tokens(request) == tokens


@pytest.mark.parametrize(("free_blocks", "fits"), [(12, False), (13, True)])
def test_running_requests_keep_what_was_set_aside_for_them(free_blocks: int, fits: bool) -> None:
    """The running one holds 2 of its 7 blocks (16 + 84 tokens); the new one needs 1 now and 7 in the end.

    One block is left as a watermark.
    """
    running = make_request("running", max_tokens=84, output_tokens=10, kv_tokens=26)
    room = EngineRoom(
        sequences=1, batched_tokens=100, kv_blocks=free_blocks, kv_blocks_reserved=1, block_size=16
    )
    new = make_request("new", max_tokens=84)
    assert AdmissionBudget(room, KvReservation.MAX, [running]).try_admit(new) is fits
    assert AdmissionBudget(room, KvReservation.NONE, [running]).try_admit(new)


def test_an_engine_that_runs_nothing_takes_what_fits_now() -> None:
    room = EngineRoom(sequences=4, batched_tokens=100, kv_blocks=3)
    budget = AdmissionBudget(room, KvReservation.MAX, [])
    assert budget.try_admit(make_request("first", max_tokens=84))
    assert not budget.try_admit(make_request("second", max_tokens=1)), "the first one's answer needs the rest"


def test_blocks_that_all_share_are_not_counted_again() -> None:
    room = EngineRoom(sequences=4, batched_tokens=100, kv_blocks=2, kv_blocks_shared=1)
    budget = AdmissionBudget(room)
    assert budget.try_admit(make_request("first", prompt_tokens=32))
    assert budget.try_admit(make_request("second", prompt_tokens=32))
    assert not budget.try_admit(make_request("third", prompt_tokens=32))


def run(reservation: KvReservation) -> VirtualServer:
    """Answers of 40 tokens of which 90 in 100 are predicted not to exceed 50, where 200 are allowed."""
    scheduler = Scheduler(Fcfs(), SchedulerSettings(kv_reservation=reservation))
    profile = make_profile(max_sequences=16, kv_blocks=40, max_model_len=320)
    server = VirtualServer(scheduler, SimulatedBatch(profile))
    server.run(
        make_request(
            f"r{number}",
            prompt_tokens=32,
            max_tokens=200,
            expected_tokens_p90=50.0,
            replay_output_tokens=40,
        )
        for number in range(60)
    )
    return server


def test_predicted_lengths_save_evictions_without_the_idle_memory_of_the_maximum() -> None:
    none, predicted, most = (run(reservation) for reservation in KvReservation)
    preemptions = [server.scheduler.preemptions_total for server in (none, predicted, most)]
    in_use = [server.kv_block_seconds / server.busy_s for server in (none, predicted, most)]
    assert preemptions[0] > 0
    assert preemptions[1:] == [0, 0]
    assert in_use[0] > in_use[1] > 2 * in_use[2]
    assert predicted.now_s < most.now_s / 2
