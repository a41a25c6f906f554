"""The fake server: who may do what, and when requests end."""

import threading
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

import grpc

from rankserve.client._convert import request_from_proto
from rankserve.client._exceptions import AlreadyExists, Cancelled, RankServeError
from rankserve.client._types import Request
from rankserve.client.testing._request import FakeRequest, Listener, check
from rankserve.client.testing._servicers import FakeRanker, FakeScheduler
from rankserve.v1 import ranker_pb2_grpc, scheduler_pb2, scheduler_pb2_grpc


class FakeServer:
    """A server on a free port of 127.0.0.1 that answers each request at once, the same for all::

        with FakeServer(answer="a few words") as server:
            with SchedulerClient(server.target) as client:
                assert client.complete("Hello").text == "a few words"

    It keeps the rules of the API (order of events, ids, cancellation, lost streams), not the order of a
    scheduler.

    Args:
        answer: what every request is answered with; a token is a word. Repeated for a replayed length.
        token: refuse calls that do not carry it.
        credentials: serve over TLS.
        max_streams: Submit and Generate calls served at once.
    """

    def __init__(
        self,
        *,
        answer: str = "a short answer",
        token: str | None = None,
        credentials: grpc.ServerCredentials | None = None,
        max_streams: int = 16,
    ) -> None:
        self.answer = answer
        self.token = token
        self._lock = threading.RLock()
        self._requests: dict[str, FakeRequest] = {}
        self._held = False
        self.reading = threading.Event()
        self.reading.set()
        self._refusal: RankServeError | None = None
        # A Submit call takes one thread to answer; one more is left for the short calls.
        self._server = grpc.server(ThreadPoolExecutor(max_streams + 1))
        scheduler_pb2_grpc.add_SchedulerServiceServicer_to_server(FakeScheduler(self), self._server)
        ranker_pb2_grpc.add_RankerServiceServicer_to_server(FakeRanker(self), self._server)
        if credentials is None:
            port = self._server.add_insecure_port("127.0.0.1:0")
        else:
            port = self._server.add_secure_port("127.0.0.1:0", credentials)
        self.target = f"127.0.0.1:{port}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def requests(self) -> tuple[Request, ...]:
        """The requests accepted so far, in the order they came."""
        with self._lock:
            return tuple(request_from_proto(request.message) for request in self._requests.values())

    def hold(self) -> None:
        """Lets requests that come from now on wait, until ``release`` or ``fail_waiting``."""
        self._held = True

    def hold_reading(self) -> None:
        """Stops reading Submit streams, as a server that cannot keep up does, until ``release``."""
        self.reading.clear()

    def release(self) -> None:
        """Answers what waits, and again reads and answers at once."""
        self._held = False
        self.reading.set()
        for request in self._waiting():
            request.answer(self.answer)

    def fail_waiting(self, error: RankServeError) -> None:
        """Ends what waits with an error."""
        for request in self._waiting():
            request.fail(error)

    def refuse(self, error: RankServeError | None) -> None:
        """Refuses requests that come from now on with this error; None accepts them again."""
        self._refusal = error

    def stop(self) -> None:
        """Stops at once, breaking every stream."""
        self._server.stop(grace=0).wait()

    def accept(self, message: scheduler_pb2.InferenceRequest, listener: Listener) -> None:
        """Takes a request, or finds the one that it repeats. Raises RankServeError to refuse it."""
        check(message)
        with self._lock:
            known = self._requests.get(message.id)
            if known is not None:
                if known.message != message:
                    raise AlreadyExists(f"id {message.id!r} was used for another request", reason="ID_REUSED")
            elif self._refusal is not None:
                raise self._refusal
            place = len(self._waiting())
            request = self._requests.setdefault(message.id, FakeRequest(message))
        request.listen(listener)
        if known is None:
            request.queue(place)
            if not self._held:
                request.answer(self.answer)

    def find(self, request_id: str) -> FakeRequest | None:
        """The request of that id, if it was ever accepted."""
        return self._requests.get(request_id)

    def lose(self, request_ids: list[str]) -> None:
        """What happens to requests whose stream is lost."""
        for request_id in request_ids:
            request = self.find(request_id)
            if request is not None and not request.message.detached:
                request.fail(
                    Cancelled("the stream that submitted the request was lost", reason="STREAM_LOST")
                )

    def stats(self) -> scheduler_pb2.GetStatsResponse:
        """Counters of the requests accepted so far."""
        with self._lock:
            states = [request.state for request in self._requests.values()]
            tokens = sum(request.output_tokens for request in self._requests.values())
        return scheduler_pb2.GetStatsResponse(
            policy="fcfs",
            ranker_version="fake/1",
            engine="fake",
            time_scale=1.0,
            waiting=states.count(scheduler_pb2.REQUEST_STATE_WAITING),
            max_sequences=8,
            max_batched_tokens=2048,
            kv_blocks_total=1000,
            accepted_total=len(states),
            finished_total=states.count(scheduler_pb2.REQUEST_STATE_FINISHED),
            output_tokens_total=tokens,
        )

    def _waiting(self) -> list[FakeRequest]:
        with self._lock:
            return [request for request in self._requests.values() if not request.ended]
