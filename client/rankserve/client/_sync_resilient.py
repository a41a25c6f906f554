"""Many requests on as many streams as it takes, without asyncio."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from queue import Empty, Full, Queue, SimpleQueue
from types import TracebackType
from typing import Any, Self

import grpc

from rankserve.client._batching import batches
from rankserve.client._channel import Metadata
from rankserve.client._config import Retry
from rankserve.client._convert import events_from_proto
from rankserve.client._exceptions import ConnectionFailed, RankServeError
from rankserve.client._ledger import Ledger, Outcome
from rankserve.client._status import from_rpc_error
from rankserve.client._sync_watch import LOOK_S
from rankserve.client._types import Event, Request
from rankserve.v1 import scheduler_pb2

Watch = Callable[[Mapping[str, int], threading.Event], Iterator[Event]]


class ResilientSubmitStream:
    """A SubmitStream that outlives the servers it talks to; as AsyncResilientSubmitStream::

        with client.submit(retry=Retry()) as stream:
            stream.send_many(requests)
            stream.done_sending()
            for event in stream:
                ...

    Sending and iterating may happen in different threads.
    """

    def __init__(
        self, method: Callable[..., Any], watch: Watch, metadata: Metadata, target: str, retry: Retry
    ) -> None:
        self._method = method
        self._watch = watch
        self._metadata = metadata
        self._target = target
        self._ledger = Ledger(retry)
        # Held for every look at the ledger and the links.
        self._lock = threading.Lock()
        self._link: _Link | None = None
        self._links: dict[int, _Link] = {}
        self._last_number = 0
        self._threads: list[threading.Thread] = []
        # A consumer that is slow slows the server down, which bounds what waits for it.
        self._incoming: Queue[list[Event]] = Queue(64)
        self._undelivered = 0
        self._events: deque[Event] = deque()
        self._fault: BaseException | None = None
        self._sent_all = False
        self._closed = threading.Event()
        self._entered = False

    def __enter__(self) -> Self:
        self._entered = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        with self._lock:
            links = list(self._links.values())
        for link in links:
            link.end()
        for thread in self._threads:
            thread.join()

    def send(self, request: Request) -> str:
        """Hands a request to the sending thread and returns its id.

        Raises:
            InvalidRequest: the request holds a value that cannot be sent.
            ValueError: its id is that of a request that has not ended.
        """
        (request_id,) = self.send_many([request])
        return request_id

    def send_many(self, requests: Iterable[Request]) -> list[str]:
        """Hands over requests, many in a message, and returns their ids; see ``send``."""
        self._check_open()
        if self._sent_all:
            raise RuntimeError("done_sending() was called: this stream takes no more requests")
        packages = batches(requests)
        sent = [request for packed, _ in packages for request in packed]
        with self._lock:
            self._ledger.add(sent)
            for packed, message in packages:
                self._transmit(packed, message)
        return [request.id for request in sent]

    def done_sending(self) -> None:
        """Says that no more requests come, so that iteration ends with the last open one."""
        self._check_open()
        self._sent_all = True

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        self._check_open()
        while not self._events:
            if self._fault is not None:
                raise self._fault
            with self._lock:
                if self._sent_all and self._ledger.empty and not self._undelivered:
                    raise StopIteration
            try:
                # Looks up now and then: the last request may end, or done_sending be called, meanwhile.
                events = self._incoming.get(timeout=LOOK_S)
            except Empty:
                continue
            with self._lock:
                self._undelivered -= 1
            self._events.extend(events)
        return self._events.popleft()

    def _check_open(self) -> None:
        if not self._entered or self._closed.is_set():
            raise RuntimeError("use the stream inside `with client.submit(retry=...) as stream`")

    def _transmit(self, requests: Sequence[Request], message: scheduler_pb2.SubmitRequest) -> None:
        if self._closed.is_set():
            return
        if self._link is None:
            self._last_number += 1
            self._link = self._links[self._last_number] = _Link(
                self._last_number, self._method, self._metadata
            )
            self._start(self._read, self._link)
        self._ledger.carry(self._link.number, [request.id for request in requests])
        self._link.outgoing.put(message)

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        def run() -> None:
            try:
                work(*arguments)
            except BaseException as fault:
                self._fault = fault

        thread = threading.Thread(target=run, daemon=True)
        self._threads = [known for known in self._threads if known.is_alive()] + [thread]
        thread.start()

    def _read(self, link: "_Link") -> None:
        error: RankServeError = ConnectionFailed(f"the server at {self._target} ended the stream")
        try:
            for response in link.call:
                with self._lock:
                    outcome = self._ledger.take(link.number, events_from_proto(response.events))
                    self._act(link, outcome)
                self._deliver(outcome.events)
        except grpc.RpcError as problem:
            error = from_rpc_error(problem, self._target)
        link.end()
        with self._lock:
            del self._links[link.number]
            outcome = self._ledger.lose(link.number, error)
            self._act(link, outcome)
        self._deliver(outcome.events)

    def _act(self, link: "_Link | None", outcome: Outcome) -> None:
        # Before the lock is left: nobody may find the ledger empty and nothing on its way.
        self._undelivered += bool(outcome.events)
        if self._closed.is_set():
            return
        if outcome.leaving and link is not None:
            if self._link is link:
                self._link = None
            link.outgoing.put(None)
        if outcome.again:
            self._start(self._send_again, outcome.again, outcome.delay_s)
        if outcome.watch:
            self._last_number += 1
            self._ledger.follow(self._last_number, outcome.watch)
            self._start(self._follow, self._last_number, outcome.watch)

    def _deliver(self, events: list[Event]) -> None:
        while events and not self._closed.is_set():
            try:
                self._incoming.put(events, timeout=LOOK_S)
            except Full:
                continue
            return

    def _send_again(self, requests: list[Request], delay_s: float) -> None:
        self._closed.wait(delay_s)
        for packed, message in batches(requests):
            with self._lock:
                self._transmit(packed, message)

    def _follow(self, link: int, positions: Mapping[str, int]) -> None:
        try:
            for event in self._watch(positions, self._closed):
                with self._lock:
                    outcome = self._ledger.take(link, [event])
                    self._act(None, outcome)
                self._deliver(outcome.events)
        except RankServeError as error:
            with self._lock:
                outcome = self._ledger.lose_watch(link, error)
                self._act(None, outcome)
            self._deliver(outcome.events)


class _Link:
    """One Submit call, and what is to be written to it. None ends the writing."""

    def __init__(self, number: int, method: Callable[..., Any], metadata: Metadata) -> None:
        self.number = number
        self.outgoing: SimpleQueue[scheduler_pb2.SubmitRequest | None] = SimpleQueue()
        self.call = method(self._messages(), metadata=metadata)

    def end(self) -> None:
        self.call.cancel()
        self.outgoing.put(None)

    def _messages(self) -> Iterator[scheduler_pb2.SubmitRequest]:
        while (message := self.outgoing.get()) is not None:
            yield message
