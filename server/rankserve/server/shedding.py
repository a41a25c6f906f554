"""Who gives up a place in a full queue."""

from collections.abc import Callable

from rankserve.server.admission import Admission
from rankserve.server.requests import RequestSpec
from rankserve.server.scheduling.by_model import AnyScheduler
from rankserve.server.scheduling.request import Request


class Shedding:
    """Drops waiting requests of worse priority, the last in line first.

    Args:
        scheduler, admission: of the queue.
        spec_of: of a request that waits.
        drop: ends a request that waits.
    """

    def __init__(
        self,
        scheduler: AnyScheduler,
        admission: Admission,
        spec_of: Callable[[Request], RequestSpec],
        drop: Callable[[Request], None],
    ) -> None:
        self._scheduler = scheduler
        self._admission = admission
        self._spec_of = spec_of
        self._drop = drop

    def make_room(self, spec: RequestSpec) -> bool:
        """Makes room for a request at the cost of worse ones; False, and nothing is dropped, if it cannot."""
        worst = self._scheduler.last_waiting()
        if worst is None or worst.priority <= spec.priority or not self._worse_make_room(spec, worst):
            return False
        while worst is not None and not self._admission.has_room(spec):
            self._drop(worst)
            worst = self._scheduler.last_waiting()
        return True

    def _worse_make_room(self, spec: RequestSpec, worst: Request) -> bool:
        """Whether there would be room without the worst one, or without all that are worse than it."""
        if self._admission.has_room(spec, without=[self._spec_of(worst)]):
            return True
        worse = [r for r in self._scheduler.waiting_requests() if r.priority > spec.priority]
        return self._admission.has_room(spec, without=[self._spec_of(request) for request in worse])
