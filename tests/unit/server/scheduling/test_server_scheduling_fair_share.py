"""Tenants of a band share it, whatever they send."""

from support.requests import make_profile, make_request

from rankserve.server.engines.simulated.batch import SimulatedBatch
from rankserve.server.scheduling.fair_share import FairShare
from rankserve.server.scheduling.policies import Ranking
from rankserve.server.scheduling.request import Phase, Request
from rankserve.server.scheduling.scheduler import Scheduler, SchedulerSettings
from rankserve.server.simulation.virtual_server import VirtualServer

SLOTS = 4
PROMPT, LENGTH = 16, 40


class Contest:
    """Tenants that all have requests waiting from the start; what each was served, in virtual tokens."""

    def __init__(self, requests: list[Request], *, fair: bool) -> None:
        settings = SchedulerSettings(fair_share=FairShare(enabled=fair))
        self.server = VirtualServer(
            Scheduler(Ranking(), settings), SimulatedBatch(make_profile(max_sequences=SLOTS))
        )
        self.server.submit(requests)
        self.requests = requests

    def served(self, tenant: str) -> float:
        mine = [r for r in self.requests if r.tenant == tenant and r.phase is not Phase.WAITING]
        return sum(r.prompt_tokens + 2.0 * r.output_tokens for r in mine)

    def waits(self, tenant: str) -> bool:
        return any(r.tenant == tenant and r.phase is Phase.WAITING for r in self.requests)

    def largest_difference(self) -> float:
        """Of the service of a and b, over all moments at which both have requests waiting."""
        largest = 0.0
        while self.waits("a") and self.waits("b"):
            self.server.step()
            largest = max(largest, abs(self.served("a") - self.served("b")))
        return largest


def flood_and_feint() -> list[Request]:
    """Tenant a sends ten times as many requests, and its prompts look as if the answers were short."""

    def request(number: int, tenant: str, score: float) -> Request:
        return make_request(
            f"{tenant}{number}", tenant=tenant, score=score, prompt_tokens=PROMPT, replay_output_tokens=LENGTH
        )

    return [request(n, "a", 9.0) for n in range(300)] + [request(n, "b", -9.0) for n in range(30)]


# Sheng et al. 2024, theorem 4.4: 2 max(w_p L_input, w_q M), M being the tokens a batch can hold.
BOUND = 2 * max(1.0 * PROMPT, 2.0 * SLOTS * (PROMPT + LENGTH))


def test_neither_a_flood_nor_feigned_brevity_takes_more_than_a_bounded_lead() -> None:
    assert Contest(flood_and_feint(), fair=True).largest_difference() <= BOUND


def test_without_fair_share_the_feint_works() -> None:
    assert Contest(flood_and_feint(), fair=False).largest_difference() > 5 * BOUND


def test_who_comes_back_has_saved_up_nothing() -> None:
    """Tenant b rests while a is served for long; from its return on they alternate."""
    scheduler = Scheduler(Ranking())
    server = VirtualServer(scheduler, SimulatedBatch(make_profile(max_sequences=1)))
    server.submit(make_request(f"a{n}", tenant="a", replay_output_tokens=5) for n in range(20))
    for _ in range(50):
        server.step()
    server.submit(make_request(f"b{n}", tenant="b", replay_output_tokens=5) for n in range(10))
    before = len(server.started)
    for _ in range(50):
        server.step()
    tenants = [name[0] for name in server.started[before:]]
    assert tenants.count("b") <= tenants.count("a") + 1
    assert tenants.count("b") >= 4


def test_within_a_tenant_the_policy_decides_and_one_tenant_alone_notices_nothing() -> None:
    orders = []
    for fair in (True, False):
        settings = SchedulerSettings(fair_share=FairShare(enabled=fair))
        server = VirtualServer(Scheduler(Ranking(), settings), SimulatedBatch(make_profile(max_sequences=1)))
        server.submit(
            make_request(f"r{n}", tenant="a", score=float(n * 7 % 10), replay_output_tokens=3)
            for n in range(10)
        )
        server.run()
        orders.append(server.started)
    assert orders[0] == orders[1]
    assert orders[0][:2] == ["r7", "r4"]


def test_a_preempted_request_is_not_charged_for_what_it_computes_again() -> None:
    requests = [make_request(f"r{n}", prompt_tokens=40, replay_output_tokens=40) for n in range(4)]
    server = VirtualServer(Scheduler(Ranking()), SimulatedBatch(make_profile(kv_blocks=8, max_model_len=128)))
    server.submit(requests)
    server.run()
    assert server.scheduler.preemptions_total > 0
    band = server.scheduler._queue._bands[0]
    assert [lane.counter for lane in band.lanes.values()] == [4 * (40 + 2 * 40)]
