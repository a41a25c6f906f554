"""The fake server's two services."""

import threading
from collections.abc import Iterator
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NoReturn

from grpc_status import rpc_status

from rankserve.client._exceptions import (
    Cancelled,
    FailedPrecondition,
    InvalidRequest,
    NotFound,
    RankServeError,
    Unauthenticated,
)
from rankserve.client._status import to_status
from rankserve.client.testing._request import FakeRequest
from rankserve.v1 import ranker_pb2, ranker_pb2_grpc, scheduler_pb2, scheduler_pb2_grpc

if TYPE_CHECKING:
    from rankserve.client.testing._server import FakeServer

Events = SimpleQueue[scheduler_pb2.RequestEvent | None]


class FakeScheduler(scheduler_pb2_grpc.SchedulerServiceServicer):
    def __init__(self, server: "FakeServer") -> None:
        self._server = server

    def Submit(  # noqa: N802 - named by the proto
        self, request_iterator: Iterator[scheduler_pb2.SubmitRequest], context: Any
    ) -> Iterator[scheduler_pb2.SubmitResponse]:
        _authenticate(self._server, context)
        stream = _Stream(self._server)
        context.add_callback(stream.lost)
        threading.Thread(target=stream.read, args=(request_iterator,), daemon=True).start()
        while (event := stream.events.get()) is not None:
            yield scheduler_pb2.SubmitResponse(events=[event])

    def Generate(  # noqa: N802
        self, request: scheduler_pb2.GenerateRequest, context: Any
    ) -> Iterator[scheduler_pb2.GenerateResponse]:
        _authenticate(self._server, context)
        events: Events = SimpleQueue()
        try:
            self._server.accept(request.request, events.put)
        except InvalidRequest as error:
            _abort(context, error)
        except RankServeError as error:
            yield scheduler_pb2.GenerateResponse(events=[_refused(request.request.id, error)])
            return

        def lost() -> None:
            self._server.lose([request.request.id])
            events.put(None)

        context.add_callback(lost)
        while (event := events.get()) is not None:
            yield scheduler_pb2.GenerateResponse(events=[event])
            if _is_last(event):
                return

    def CancelRequest(  # noqa: N802
        self, request: scheduler_pb2.CancelRequestRequest, context: Any
    ) -> scheduler_pb2.CancelRequestResponse:
        _authenticate(self._server, context)
        found = _find(self._server, request.request_id, context)
        cancelled = found.fail(Cancelled("cancelled by the client", reason="CANCELLED_BY_CLIENT"))
        return scheduler_pb2.CancelRequestResponse(cancelled=cancelled)

    def GetRequest(  # noqa: N802
        self, request: scheduler_pb2.GetRequestRequest, context: Any
    ) -> scheduler_pb2.GetRequestResponse:
        _authenticate(self._server, context)
        found = _find(self._server, request.request_id, context)
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
        _authenticate(self._server, context)
        return self._server.stats()


class FakeRanker(ranker_pb2_grpc.RankerServiceServicer):
    """Scores a prompt by its length, and has one good version and one damaged one."""

    def __init__(self, server: "FakeServer") -> None:
        self._server = server
        self._good = ranker_pb2.RankerVersion(
            name="fake", version=1, active=True, kendall_tau=0.5, precision="int8", base_model="none"
        )
        self._damaged = ranker_pb2.RankerVersion(name="fake", version=2, problem="model.onnx is damaged")

    def Score(  # noqa: N802
        self, request: ranker_pb2.ScoreRequest, context: Any
    ) -> ranker_pb2.ScoreResponse:
        _authenticate(self._server, context)
        if not request.prompts or not all(request.prompts):
            _abort(context, InvalidRequest("prompts must not be empty"))
        scores = [
            ranker_pb2.PromptScore(score=-float(len(prompt)), expected_tokens_p50=float(len(prompt)))
            for prompt in request.prompts
        ]
        return ranker_pb2.ScoreResponse(scores=scores, ranker_version="fake/1")

    def ListRankerVersions(  # noqa: N802
        self, request: ranker_pb2.ListRankerVersionsRequest, context: Any
    ) -> ranker_pb2.ListRankerVersionsResponse:
        _authenticate(self._server, context)
        return ranker_pb2.ListRankerVersionsResponse(versions=[self._good, self._damaged])

    def ActivateRankerVersion(  # noqa: N802
        self, request: ranker_pb2.ActivateRankerVersionRequest, context: Any
    ) -> ranker_pb2.ActivateRankerVersionResponse:
        _authenticate(self._server, context)
        if request.name != "fake" or request.version > 2:
            _abort(context, NotFound(f"no ranker version {request.name}/{request.version}"))
        if request.version == 2:
            _abort(context, FailedPrecondition(self._damaged.problem, reason="RANKER_VERSION_UNUSABLE"))
        return ranker_pb2.ActivateRankerVersionResponse(active=self._good, rescored=0)


class _Stream:
    """One Submit call: what came in on it, and the events to send back."""

    def __init__(self, server: "FakeServer") -> None:
        self.events: Events = SimpleQueue()
        self._server = server
        self._open: set[str] = set()
        self._lock = threading.Lock()
        self._half_closed = False

    def read(self, requests: Iterator[scheduler_pb2.SubmitRequest]) -> None:
        try:
            for message in requests:
                self._server.reading.wait()
                self._take(message.request)
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
        self.events.put(None)

    def _take(self, message: scheduler_pb2.InferenceRequest) -> None:
        # Without the lock: the request's own lock is held while it tells its listeners.
        with self._lock:
            self._open.add(message.id)
        try:
            self._server.accept(message, self._tell)
        except RankServeError as error:
            self._tell(_refused(message.id, error))

    def _tell(self, event: scheduler_pb2.RequestEvent) -> None:
        self.events.put(event)
        if _is_last(event):
            with self._lock:
                self._open.discard(event.request_id)
                self._end_if_done()

    def _end_if_done(self) -> None:
        if self._half_closed and not self._open:
            self.events.put(None)


def _is_last(event: scheduler_pb2.RequestEvent) -> bool:
    return event.WhichOneof("event") in ("finished", "failed")


def _refused(request_id: str, error: RankServeError) -> scheduler_pb2.RequestEvent:
    failure = scheduler_pb2.RequestFailure(status=to_status(error))
    return scheduler_pb2.RequestEvent(request_id=request_id, failed=failure)


def _find(server: "FakeServer", request_id: str, context: Any) -> FakeRequest:
    request = server.find(request_id)
    if request is None:
        _abort(context, NotFound(f"no request {request_id!r}"))
    return request


def _abort(context: Any, error: RankServeError) -> NoReturn:
    context.abort_with_status(rpc_status.to_status(to_status(error)))
    raise error  # abort raises before this; the type checker cannot know


def _authenticate(server: "FakeServer", context: Any) -> None:
    given = dict(context.invocation_metadata()).get("authorization")
    if server.token is not None and given != f"Bearer {server.token}":
        _abort(context, Unauthenticated("the token is missing or not known"))
