"""What is known of requests that are watched, perhaps at several replicas of which one holds each."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from rankserve.client._attempts import is_final_for_one_replica
from rankserve.client._exceptions import ConnectionFailed, NotFound, RankServeError
from rankserve.client._types import Accepted, Event, Failed, Finished, Queued, Tokens
from rankserve.v1 import scheduler_pb2

# The most that one Watch call may ask for.
MAX_POSITIONS = 1000


@dataclass(slots=True, frozen=True)
class Unreachable:
    """A replica has been out of reach for too long to be asked for these ids again."""

    request_ids: Sequence[str]
    error: RankServeError


Incoming = list[Event] | RankServeError | Unreachable


class WatchLedger:
    """Positions of the requests that have not ended, and who does not have which.

    Args:
        positions: tokens received already, by id.
        sources: how many replicas are asked.
    """

    def __init__(self, positions: Mapping[str, int], sources: int) -> None:
        self._open = dict(positions)
        self._sources = sources
        self._denied: dict[str, dict[int, RankServeError]] = {}
        self._told: set[tuple[str, type]] = set()
        self._stranded: RankServeError | None = None

    @property
    def done(self) -> bool:
        return not self._open

    def check_end(self) -> None:
        """Raises what kept requests from being watched to their end."""
        if self._stranded is not None:
            raise self._stranded

    def chunks(self) -> Iterator[Sequence[str]]:
        """The ids, as many together as one call may ask for."""
        ids = iter(list(self._open))
        while chunk := list(islice(ids, MAX_POSITIONS)):
            yield chunk

    def wanted(self, source: int, ids: Iterable[str]) -> scheduler_pb2.WatchRequest:
        """What to ask this replica for, of these ids; without positions once there is nothing."""
        return scheduler_pb2.WatchRequest(
            positions=[
                scheduler_pb2.WatchPosition(request_id=request_id, offset=self._open[request_id])
                for request_id in ids
                if request_id in self._open and source not in self._denied.get(request_id, {})
            ]
        )

    def read(self, source: int, incoming: Incoming) -> Iterator[Event]:
        """The news in what came from this replica. Raises an error that came instead."""
        if isinstance(incoming, RankServeError):
            raise incoming
        if isinstance(incoming, Unreachable):
            self._give_up(source, incoming)
            return
        for event in incoming:
            if (news := self._take(source, event)) is not None:
                yield news

    def _take(self, source: int, event: Event) -> Event | None:
        request_id = event.request_id
        if request_id not in self._open:
            return None
        match event:
            case Tokens():
                if event.offset < self._open[request_id]:
                    return None
                self._open[request_id] = event.offset + event.count
            case Accepted() | Queued():
                if (request_id, type(event)) in self._told:
                    return None
                self._told.add((request_id, type(event)))
            case Failed():
                if is_final_for_one_replica(event.error):
                    self._denied.setdefault(request_id, {})[source] = event.error
                    return self._conclude(request_id, event.output_tokens)
                del self._open[request_id]
            case Finished():
                del self._open[request_id]
        return event

    def _give_up(self, source: int, unreachable: Unreachable) -> None:
        error = ConnectionFailed(f"gave up watching: {unreachable.error}")
        for request_id in unreachable.request_ids:
            if request_id in self._open:
                self._denied.setdefault(request_id, {}).setdefault(source, error)
                self._conclude(request_id, 0)

    def _conclude(self, request_id: str, output_tokens: int) -> Failed | None:
        """Ends a request that no replica has."""
        errors = self._denied[request_id].values()
        if len(errors) < self._sources:
            return None
        del self._open[request_id]
        for error in errors:
            if isinstance(error, ConnectionFailed):
                # Its server may still have it.
                self._stranded = error
                return None
        told = next((error for error in errors if not isinstance(error, NotFound)), next(iter(errors)))
        return Failed(request_id, told, output_tokens)
