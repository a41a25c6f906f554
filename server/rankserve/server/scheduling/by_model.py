"""A queue for each model: those who ask for different models do not wait for the same slots."""

from collections.abc import Iterable, Iterator
from itertools import chain, islice

from rankserve.server.scheduling.budget import EngineRoom
from rankserve.server.scheduling.policies import Policy
from rankserve.server.scheduling.request import Request
from rankserve.server.scheduling.scheduler import Plan, Scheduler, SchedulerSettings


class Schedulers:
    """One scheduler for each model, made when it is first asked for; together they look like one.

    Each has its own order, turns and bound on waiting, which follows the pace of its own model.
    """

    def __init__(self, policy: Policy, settings: SchedulerSettings | None = None) -> None:
        self.policy = policy
        self.settings = settings or SchedulerSettings()
        # Engines that count steps or choose victims serve one model, which is the first.
        self._first = Scheduler(policy, self.settings)
        self._by_model = {"": self._first}

    @property
    def steps(self) -> int:
        return self._first.steps

    @property
    def waiting(self) -> int:
        return sum(scheduler.waiting for scheduler in self._all)

    @property
    def running(self) -> int:
        return sum(scheduler.running for scheduler in self._all)

    @property
    def promotions_total(self) -> int:
        return sum(scheduler.promotions_total for scheduler in self._all)

    @property
    def preemptions_total(self) -> int:
        return sum(scheduler.preemptions_total for scheduler in self._all)

    def waiting_for(self, model: str) -> int:
        """How many wait for this model."""
        return self._by_model[model].waiting if model in self._by_model else 0

    def set_policy(self, policy: Policy, now_s: float) -> None:
        """See `Scheduler.set_policy`."""
        done: list[Scheduler] = []
        try:
            for scheduler in self._all:
                scheduler.set_policy(policy, now_s)
                done.append(scheduler)
        except ValueError:
            for scheduler in done:
                scheduler.set_policy(self.policy, now_s)
            raise
        self.policy = policy

    def last_waiting(self) -> Request | None:
        """See `Scheduler.last_waiting`; of several models' the one of the worst band."""
        last = [request for scheduler in self._all if (request := scheduler.last_waiting()) is not None]
        return max(last, key=lambda request: request.priority, default=None)

    def submit(self, request: Request) -> None:
        """See `Scheduler.submit`."""
        self._of(request).submit(request)

    def plan(self, now_s: float, room: EngineRoom) -> Plan:
        """See `Scheduler.plan`, for the model that there is room for."""
        scheduler = self._by_model.get(room.model)
        return Plan([], []) if scheduler is None else scheduler.plan(now_s, room)

    def select_victim(self, now_s: float) -> Request | None:
        """See `Scheduler.select_victim`."""
        return self._first.select_victim(now_s)

    def put_back(self, request: Request) -> None:
        """See `Scheduler.put_back`."""
        self._of(request).put_back(request)

    def produced(self, request: Request, count: int) -> None:
        """See `Scheduler.produced`."""
        self._of(request).produced(request, count)

    def step_done(self) -> None:
        """See `Scheduler.step_done`."""
        self._first.step_done()

    def end(self, request: Request, *, finished: bool = False) -> None:
        """See `Scheduler.end`."""
        self._of(request).end(request, finished=finished)

    def expired(self, now_s: float, most: int | None = None) -> list[Request]:
        """See `Scheduler.expired`."""
        return self._some((scheduler.expired(now_s, most) for scheduler in self._all), most)

    def next_deadline_s(self) -> float | None:
        """See `Scheduler.next_deadline_s`."""
        deadlines_s = (scheduler.next_deadline_s() for scheduler in self._all)
        return min((deadline_s for deadline_s in deadlines_s if deadline_s is not None), default=None)

    def rescore(self, scored: Iterable[tuple[Request, float, float, float]]) -> None:
        """See `Scheduler.rescore`."""
        for one in scored:
            self._of(one[0]).rescore((one,))

    def place(self, request: Request, now_s: float) -> int:
        """See `Scheduler.place`."""
        return self._of(request).place(request, now_s)

    def next_requests(self, now_s: float, most: int) -> list[Request]:
        """See `Scheduler.next_requests`; one model after the other."""
        return self._some((s.next_requests(now_s, most) for s in self._all), most)

    def running_requests(self, most: int) -> list[Request]:
        """See `Scheduler.running_requests`; one model after the other."""
        return self._some((s.running_requests(most) for s in self._all), most)

    def waiting_requests(self) -> list[Request]:
        """See `Scheduler.waiting_requests`."""
        return [request for scheduler in self._all for request in scheduler.waiting_requests()]

    def check_integrity(self) -> None:
        """See `Scheduler.check_integrity`."""
        for scheduler in self._all:
            scheduler.check_integrity()

    @property
    def _all(self) -> Iterable[Scheduler]:
        return self._by_model.values()

    def _of(self, request: Request) -> Scheduler:
        scheduler = self._by_model.get(request.model)
        if scheduler is None:
            scheduler = self._by_model[request.model] = Scheduler(self.policy, self.settings)
        return scheduler

    @staticmethod
    def _some(requests: Iterator[list[Request]], most: int | None) -> list[Request]:
        return list(islice(chain.from_iterable(requests), most))


AnyScheduler = Scheduler | Schedulers
