"""Starvation prevention: the paper's algorithm by hand, and what a bound in time guarantees."""

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from support.requests import make_profile, make_request

from rankserve.server.engines.simulated.batch import SimulatedBatch
from rankserve.server.scheduling.policies import Ranking, make_policy
from rankserve.server.scheduling.preemption import Preemption
from rankserve.server.scheduling.request import Request
from rankserve.server.scheduling.reservation import KvReservation
from rankserve.server.scheduling.scheduler import Scheduler, SchedulerSettings
from rankserve.server.scheduling.starvation import StarvationSettings
from rankserve.server.simulation.virtual_server import VirtualServer


def test_the_papers_algorithm_against_a_schedule_worked_by_hand() -> None:
    """Fu et al. 2024, algorithm 1, with threshold 3 and quantum 2: one slot, a token a second, eviction free.

    L (length 4) ranks last; S1, S2, S3, S4 (length 2) arrive every 2 s from t 0.

    t 0: S1 before L; it ends at t 2, and S2 starts
    t 3: L was in no batch for 3 steps: promoted. S2 came after it and yields, with 1 of 2 tokens
    t 4: S3 arrives; L has used one step of its quantum and is protected
    t 5: L's quantum is used up, with 2 of 4 tokens. S2 has 1 token left and L has 2: S2 takes its place
    t 6: S2 ends; S4 arrives; S3 starts and ends at t 8
    t 8: L was in no batch since t 5: promoted again, before S4. It ends at t 10
    t 10: S4 starts and ends at t 12; it waited 4 steps, but there is nobody else to go before
    """
    bounds = StarvationSettings(threshold_steps=3, quantum_steps=2)
    free = Preemption(enabled=True, margin=0.0)
    scheduler = Scheduler(Ranking(), SchedulerSettings(starvation=bounds, preemption=free))
    server = VirtualServer(scheduler, SimulatedBatch(make_profile(max_sequences=1)))

    def request(name: str, arrival_s: float, length: int) -> Request:
        return make_request(
            name,
            arrival_s=arrival_s,
            score=-float(length),
            expected_tokens=float(length),
            replay_output_tokens=length,
        )

    server.run(
        [
            request("L", 0.0, 4),
            *(request(f"S{n}", arrival_s, 2) for n, arrival_s in enumerate((0, 2, 4, 6), 1)),
        ]
    )
    assert server.started == ["S1", "S2", "L", "S2", "S3", "L", "S4"]
    ends_s = {name: server.end_s(name) for name in ("S1", "S2", "S3", "L", "S4")}
    assert ends_s == pytest.approx({"S1": 2, "S2": 6, "S3": 8, "L": 10, "S4": 12})
    assert scheduler.promotions_total == 2


def test_without_prevention_the_same_long_request_starves() -> None:
    server = VirtualServer(Scheduler(Ranking()), SimulatedBatch(make_profile(max_sequences=1)))
    shorts = [make_request(f"S{n}", arrival_s=2.0 * n, replay_output_tokens=2) for n in range(50)]
    for short in shorts:
        short.score = 1.0
    server.run([make_request("L", score=-1.0, replay_output_tokens=4), *shorts])
    assert server.started[-1] == "L"


@st.composite
def workloads(draw: st.DrawFn) -> list[Request]:
    """A few dozen requests in bursts, in two bands, more than the engine can serve at once."""
    arrival_s = 0.0
    requests = []
    for number in range(draw(st.integers(2, 40))):
        arrival_s += draw(st.sampled_from([0.0, 0.0, 0.3, 2.0, 9.0]))
        length = draw(st.integers(1, 20))
        requests.append(
            make_request(
                f"r{number}",
                arrival_s=arrival_s,
                priority=draw(st.sampled_from([0, 0, 0, 1])),
                prompt_tokens=draw(st.integers(1, 40)),
                max_tokens=20,
                score=-float(draw(st.integers(1, 20))),
                expected_tokens=float(length),
                replay_output_tokens=length,
            )
        )
    return requests


@given(
    requests=workloads(),
    policy=st.sampled_from(["fcfs", "ranking", "cost_aware", "mlfq", "hrrn", "sjf"]),
    max_wait_s=st.sampled_from([0.5, 3.0, 10.0]),
    slots=st.integers(1, 4),
)
@settings(max_examples=100, deadline=None)
def test_the_guarantee(requests: list[Request], policy: str, max_wait_s: float, slots: int) -> None:
    """Without preemption, and with KV blocks reserved so that nobody is evicted for want of them:

    1. from the moment a request is due, only requests of better bands, and those of its own that have waited
       longer, start before it;
    2. so it starts as soon as these and the requests that ran at that moment have ended, or sooner.
    """
    scheduler = Scheduler(
        make_policy(policy),
        SchedulerSettings(
            starvation=StarvationSettings(max_wait_s=max_wait_s), kv_reservation=KvReservation.MAX
        ),
    )
    profile = make_profile(max_sequences=slots, max_batched_tokens=32, kv_blocks=16, max_model_len=64)
    server = VirtualServer(scheduler, SimulatedBatch(profile))
    server.run(requests)
    assert scheduler.preemptions_total == 0

    by_id = {request.id: request for request in requests}
    order = [by_id[name] for name in server.started]
    starts_s = {name: timing.scheduled_s or 0.0 for name, timing in server.timings.items()}
    for place, request in enumerate(order):
        due_s = request.arrival_s + max_wait_s
        if starts_s[request.id] <= due_s:
            continue
        before = order[:place]
        since_due = [other for other in before if starts_s[other.id] - request.arrival_s >= max_wait_s]
        for other in since_due:
            assert other.priority < request.priority or (
                other.priority == request.priority
                and (other.arrival_s, other.sequence) < (request.arrival_s, request.sequence)
            ), f"{other.id} started before {request.id}, which was due"
        still_running = [other for other in before if server.end_s(other.id) > due_s]
        assert starts_s[request.id] <= max(server.end_s(other.id) for other in still_running)
