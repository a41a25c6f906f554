"""The fake server's SchedulerService."""

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rankserve.client._exceptions import Cancelled, InvalidRequest, NotFound, RankServeError
from rankserve.client._status import to_status
from rankserve.client.testing._access import abort, authenticate, find
from rankserve.client.testing._request import FakeRequest
from rankserve.client.testing._streams import Outgoing
from rankserve.v1 import scheduler_pb2, scheduler_pb2_grpc

if TYPE_CHECKING:
    from rankserve.client.testing._server import FakeServer


class FakeScheduler(scheduler_pb2_grpc.SchedulerServiceServicer):
    def __init__(self, server: "FakeServer") -> None:
        self._server = server

    def Submit(  # noqa: N802 - named by the proto
        self, request_iterator: Iterator[scheduler_pb2.SubmitRequest], context: Any
    ) -> Iterator[scheduler_pb2.SubmitResponse]:
        authenticate(self._server, context)
        outgoing = self._server.streams.open(context)
        stream = _SubmitStream(self._server, outgoing)
        context.add_callback(stream.lost)
        threading.Thread(target=stream.read, args=(request_iterator,), daemon=True).start()
        for event in outgoing.events(context):
            yield scheduler_pb2.SubmitResponse(events=[event])

    def Generate(  # noqa: N802
        self, request: scheduler_pb2.GenerateRequest, context: Any
    ) -> Iterator[scheduler_pb2.GenerateResponse]:
        authenticate(self._server, context)
        outgoing = self._server.streams.open(context)
        try:
            self._server.accept(request.request, outgoing.put)
        except RankServeError as error:
            abort(context, error)

        def lost() -> None:
            self._server.lose([request.request.id])
            outgoing.end()

        context.add_callback(lost)
        for event in outgoing.events(context):
            yield scheduler_pb2.GenerateResponse(events=[event])
            if _is_last(event):
                return

    def Watch(  # noqa: N802
        self, request: scheduler_pb2.WatchRequest, context: Any
    ) -> Iterator[scheduler_pb2.WatchResponse]:
        authenticate(self._server, context)
        outgoing = self._server.streams.open(context)
        context.add_callback(outgoing.end)
        left = {position.request_id for position in request.positions}
        if len(left) != len(request.positions) or not 1 <= len(left) <= 1000:
            abort(context, InvalidRequest("watch 1 to 1000 requests, each once"))
        for position in request.positions:
            found = self._server.find(position.request_id)
            if found is None:
                error = NotFound(f"no request {position.request_id!r}", reason="REQUEST_NOT_FOUND")
                outgoing.put(_refused(position.request_id, error))
            else:
                found.watch(position.offset, outgoing.put)
        for event in outgoing.events(context):
            yield scheduler_pb2.WatchResponse(events=[event])
            if _is_last(event):
                left.discard(event.request_id)
            if not left:
                return

    def CancelRequest(  # noqa: N802
        self, request: scheduler_pb2.CancelRequestRequest, context: Any
    ) -> scheduler_pb2.CancelRequestResponse:
        authenticate(self._server, context)
        found = find(self._server, request.request_id, context)
        cancelled = found.fail(Cancelled("cancelled by the client", reason="CANCELLED_BY_CLIENT"))
        return scheduler_pb2.CancelRequestResponse(cancelled=cancelled)

    def GetRequest(  # noqa: N802
        self, request: scheduler_pb2.GetRequestRequest, context: Any
    ) -> scheduler_pb2.GetRequestResponse:
        authenticate(self._server, context)
        found = find(self._server, request.request_id, context)
        response = scheduler_pb2.GetRequestResponse(
            request_id=request.request_id,
            state=found.state,
            output_tokens=found.output_tokens,
            score=found.score,
            ranker_version="fake/1",
        )
        if found.state == scheduler_pb2.REQUEST_STATE_FINISHED:
            response.result.CopyFrom(found.last_event.finished)
        elif found.state == scheduler_pb2.REQUEST_STATE_FAILED:
            response.failure.CopyFrom(found.last_event.failed)
        return response

    def GetStats(  # noqa: N802
        self, request: scheduler_pb2.GetStatsRequest, context: Any
    ) -> scheduler_pb2.GetStatsResponse:
        authenticate(self._server, context)
        return self._server.stats()

    def ListRequests(  # noqa: N802
        self, request: scheduler_pb2.ListRequestsRequest, context: Any
    ) -> scheduler_pb2.ListRequestsResponse:
        authenticate(self._server, context)
        found = [
            known
            for known in self._server.all_requests()
            if (not request.states or known.state in request.states)
            and (not request.HasField("tenant") or known.message.tenant == request.tenant)
        ]
        start = int(request.page_token or 0)
        end = start + (request.page_size or 100)
        return scheduler_pb2.ListRequestsResponse(
            requests=map(_summary, found[start:end]), next_page_token=str(end) if end < len(found) else ""
        )

    def WatchStats(  # noqa: N802
        self, request: scheduler_pb2.WatchStatsRequest, context: Any
    ) -> Iterator[scheduler_pb2.WatchStatsResponse]:
        authenticate(self._server, context)
        if request.interval_ms and not 100 <= request.interval_ms <= 60_000:
            abort(context, InvalidRequest("interval_ms must be 0 or from 100 to 60000"))
        stopping = self._server.stopping
        while context.is_active() and not stopping.is_set():
            yield scheduler_pb2.WatchStatsResponse(stats=self._server.stats())
            stopping.wait((request.interval_ms or 1000) / 1000)


class _SubmitStream:
    """One Submit call: what came in on it, and the events to send back."""

    def __init__(self, server: "FakeServer", outgoing: Outgoing) -> None:
        self._outgoing = outgoing
        self._server = server
        self._open: set[str] = set()
        self._lock = threading.Lock()
        self._half_closed = False

    def read(self, requests: Iterator[scheduler_pb2.SubmitRequest]) -> None:
        try:
            for message in requests:
                self._server.reading.wait()
                if message.HasField("request"):
                    self._take(message.request)
                for request in message.requests:
                    self._take(request)
        except Exception:  # grpc raises a bare Exception into the iterator of a lost call
            self.lost()
            return
        with self._lock:
            self._half_closed = True
            self._end_if_done()

    def lost(self) -> None:
        with self._lock:
            request_ids = list(self._open)
        self._server.lose(request_ids)
        self._outgoing.end()

    def _take(self, message: scheduler_pb2.InferenceRequest) -> None:
        # Without the lock: the request's own lock is held while it tells its listeners.
        with self._lock:
            self._open.add(message.id)
        try:
            self._server.accept(message, self._tell)
        except RankServeError as error:
            self._tell(_refused(message.id, error))

    def _tell(self, event: scheduler_pb2.RequestEvent) -> None:
        self._outgoing.put(event)
        if _is_last(event):
            with self._lock:
                self._open.discard(event.request_id)
                self._end_if_done()

    def _end_if_done(self) -> None:
        if self._half_closed and not self._open:
            self._outgoing.end()


def _is_last(event: scheduler_pb2.RequestEvent) -> bool:
    return event.WhichOneof("event") in ("finished", "failed")


def _refused(request_id: str, error: RankServeError) -> scheduler_pb2.RequestEvent:
    failure = scheduler_pb2.RequestFailure(status=to_status(error))
    return scheduler_pb2.RequestEvent(request_id=request_id, failed=failure)


def _summary(request: FakeRequest) -> scheduler_pb2.RequestSummary:
    return scheduler_pb2.RequestSummary(
        request_id=request.message.id,
        state=request.state,
        tenant=request.message.tenant,
        priority=request.message.priority,
        accept_time=request.accept_time,
        input_tokens=len(request.message.prompt.split()),
        output_tokens=request.output_tokens,
        score=request.score,
        ranker_version="fake/1",
    )
