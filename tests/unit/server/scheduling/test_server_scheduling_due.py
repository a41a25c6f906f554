from support.requests import make_request

from rankserve.server.scheduling.policies import Ranking
from rankserve.server.scheduling.queue import RankedQueue
from rankserve.server.scheduling.starvation import Starvation, StarvationSettings


def test_a_request_that_leaves_and_comes_back_within_one_wait_costs_no_memory() -> None:
    """As engines do that look at a request and find that it cannot start yet."""
    queue = RankedQueue(Ranking(), Starvation(StarvationSettings(max_wait_s=10.0)))
    requests = [make_request(str(n), score=float(n), sequence=n) for n in range(3)]
    for request in requests:
        queue.add(request)
    for _ in range(5_000):
        queue.remove(requests[0])
        queue.add(requests[0])
    waits = queue._bands[0].waits
    assert waits is not None
    assert len(waits) == 3
    assert queue.first(10.0) is requests[0]
    queue.remove(requests[0])
    assert queue.first(10.0) is requests[1]
    queue.check_integrity()


def test_what_an_engine_gave_back_waits_since_it_arrived() -> None:
    queue = RankedQueue(Ranking(), Starvation(StarvationSettings(max_wait_s=10.0)))
    requests = [make_request(str(n), score=float(n), sequence=n, waiting_since_s=float(n)) for n in range(6)]
    for number in (1, 4, 5, 2, 0, 3):
        queue.add(requests[number])
        queue.check_integrity()
    for request in requests:
        assert queue.first(100.0) is request
        queue.remove(request)
        queue.check_integrity()
