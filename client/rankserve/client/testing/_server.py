"""The fake server: who may do what, and when requests end."""

import threading
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

import grpc

from rankserve.client._convert import request_from_proto
from rankserve.client._exceptions import AlreadyExists, Cancelled, Draining, RankServeError
from rankserve.client._types import Request
from rankserve.client.testing._admin import FakeAdmin
from rankserve.client.testing._health import FakeHealth
from rankserve.client.testing._ranker import FakeRanker
from rankserve.client.testing._request import FakeRequest, Listener, check
from rankserve.client.testing._scheduler import FakeScheduler
from rankserve.client.testing._streams import OpenStreams
from rankserve.v1 import admin_pb2_grpc, ranker_pb2_grpc, scheduler_pb2, scheduler_pb2_grpc

# Threads for calls that the limit on streams does not count: health checks, statistics, short calls.
SPARE_THREADS = 16


class FakeServer:
    """A server on a free port of 127.0.0.1 that answers each request at once, the same for all::

        with FakeServer(answer="a few words") as server:
            with SchedulerClient(server.target) as client:
                assert client.complete("Hello").text == "a few words"

    It keeps the rules of the API (order of events, ids, cancellation, lost streams, watching, draining), not
    the order of a scheduler. What can go wrong happens on request: ``hold`` lets requests wait,
    ``answer_part`` answers them in part, ``refuse`` and ``fail_waiting`` fail them, ``break_streams`` cuts
    connections, ``stop`` and ``start`` restart it on its port, with its requests as if it had a journal, or
    without after ``forget``.

    Args:
        answer: what every request is answered with; a token is a word. Repeated for a replayed length.
        token: refuse calls that do not carry it.
        credentials: serve over TLS.
        max_streams: Submit, Generate and Watch calls served at once.
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
        self.policy = "fcfs"
        self.state = scheduler_pb2.SERVER_STATE_SERVING
        self.streams = OpenStreams()
        self.health = FakeHealth()
        self.reading = threading.Event()
        self.reading.set()
        self.stopping = threading.Event()
        self._lock = threading.RLock()
        self._requests: dict[str, FakeRequest] = {}
        self._held = False
        self._refusal: RankServeError | None = None
        self._credentials = credentials
        self._max_streams = max_streams
        self._port = 0
        self._build()

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def target(self) -> str:
        """Its address, the same after a restart."""
        return f"127.0.0.1:{self._port}"

    @property
    def requests(self) -> tuple[Request, ...]:
        """The requests accepted so far, in the order they came."""
        return tuple(request_from_proto(request.message) for request in self.all_requests())

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

    def answer_part(self, tokens: int) -> None:
        """Sends the first few tokens of what waits; ``release`` sends the others."""
        for request in self._waiting():
            request.answer(self.answer, tokens)

    def fail_waiting(self, error: RankServeError) -> None:
        """Ends what waits with an error."""
        for request in self._waiting():
            request.fail(error)

    def refuse(self, error: RankServeError | None) -> None:
        """Refuses requests that come from now on with this error; None accepts them again."""
        self._refusal = error

    def drain(self) -> int:
        """As AdminService.Drain: says NOT_SERVING, refuses new requests, and serves those it has."""
        self.state = scheduler_pb2.SERVER_STATE_DRAINING
        self.health.set_serving(False)
        return len(self._waiting())

    def pause(self) -> int:
        """As AdminService.Pause: requests that come from now on wait."""
        self.state = scheduler_pb2.SERVER_STATE_PAUSED
        self.hold()
        return len(self._waiting())

    def resume(self) -> None:
        """Ends ``drain`` and ``pause``."""
        self.state = scheduler_pb2.SERVER_STATE_SERVING
        self.health.set_serving(True)
        self.release()

    def break_streams(self) -> None:
        """Cuts every Submit, Generate and Watch call, as a lost connection does."""
        self.streams.break_all()

    def stop(self) -> None:
        """Stops at once, breaking every stream."""
        self.stopping.set()
        self.health.close()
        self._server.stop(grace=0).wait()

    def start(self) -> None:
        """Starts again after ``stop``, on the same port and with the requests it had."""
        self.health = FakeHealth()
        self.state = scheduler_pb2.SERVER_STATE_SERVING
        self.stopping = threading.Event()
        self._build()
        self._server.start()

    def forget(self) -> None:
        """Loses all requests, as a restart without a journal does."""
        with self._lock:
            self._requests.clear()

    def accept(self, message: scheduler_pb2.InferenceRequest, listener: Listener) -> None:
        """Takes a request, or finds the one that it repeats. Raises RankServeError to refuse it."""
        check(message)
        with self._lock:
            known = self._requests.get(message.id)
            if known is not None:
                if known.message != message:
                    raise AlreadyExists(f"id {message.id!r} was used for another request", reason="ID_REUSED")
            elif self.state == scheduler_pb2.SERVER_STATE_DRAINING:
                raise Draining("the server is shutting down; submit the request elsewhere", reason="DRAINING")
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

    def all_requests(self) -> list[FakeRequest]:
        """In the order they came."""
        with self._lock:
            return list(self._requests.values())

    def lose(self, request_ids: list[str]) -> None:
        """What happens to requests whose stream is lost; nothing if the server is what is lost."""
        for request_id in request_ids if not self.stopping.is_set() else ():
            request = self.find(request_id)
            if request is not None and not request.message.detached:
                request.fail(
                    Cancelled("the stream that submitted the request was lost", reason="STREAM_LOST")
                )

    def stats(self) -> scheduler_pb2.GetStatsResponse:
        """Counters of the requests accepted so far."""
        requests = self.all_requests()
        states = [request.state for request in requests]
        return scheduler_pb2.GetStatsResponse(
            policy=self.policy,
            ranker_version="fake/1",
            engine="fake",
            time_scale=1.0,
            waiting=states.count(scheduler_pb2.REQUEST_STATE_WAITING),
            max_sequences=8,
            max_batched_tokens=2048,
            kv_blocks_total=1000,
            accepted_total=len(states),
            finished_total=states.count(scheduler_pb2.REQUEST_STATE_FINISHED),
            output_tokens_total=sum(request.output_tokens for request in requests),
            state=self.state,
            open_streams=len(self.streams),
            ranker_accuracy=[
                scheduler_pb2.RankerAccuracy(ranker_version="fake/1", kendall_tau=0.5, requests=len(states))
            ],
        )

    def _build(self) -> None:
        # A call takes one thread for as long as it lasts.
        self._server = grpc.server(ThreadPoolExecutor(self._max_streams + SPARE_THREADS))
        scheduler_pb2_grpc.add_SchedulerServiceServicer_to_server(FakeScheduler(self), self._server)
        ranker_pb2_grpc.add_RankerServiceServicer_to_server(FakeRanker(self), self._server)
        admin_pb2_grpc.add_AdminServiceServicer_to_server(FakeAdmin(self), self._server)
        self._server.add_generic_rpc_handlers((self.health.handler(),))
        if self._credentials is None:
            self._port = self._server.add_insecure_port(f"127.0.0.1:{self._port}")
        else:
            self._port = self._server.add_secure_port(f"127.0.0.1:{self._port}", self._credentials)

    def _waiting(self) -> list[FakeRequest]:
        return [request for request in self.all_requests() if not request.ended]
