"""Following requests over lost connections, without asyncio."""

import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from queue import Empty, Full, Queue
from typing import Any

import grpc

from rankserve.client._channel import Metadata
from rankserve.client._config import Retry
from rankserve.client._convert import events_from_proto
from rankserve.client._exceptions import ConnectionFailed, RankServeError, Unavailable
from rankserve.client._status import from_rpc_error
from rankserve.client._types import Event
from rankserve.client._watch_ledger import Incoming, Unreachable, WatchLedger

# How often a thread looks whether its consumer has gone.
LOOK_S = 0.05


class Watch:
    """As AsyncWatch, with a thread for each call.

    ``abandoned`` ends the iteration from outside.
    """

    def __init__(
        self,
        methods: Sequence[Callable[..., Any]],
        metadata: Metadata,
        target: str,
        retry: Retry,
        patience_s: float,
        abandoned: threading.Event,
    ) -> None:
        self._methods = methods
        self._metadata = metadata
        self._target = target
        self._retry = retry
        self._patience_s = patience_s
        # A consumer that is slow slows the server down, which bounds what waits for it.
        self._incoming: Queue[tuple[int, Incoming]] = Queue(16)
        self._abandoned = abandoned
        self._closed = threading.Event()
        self._calls: dict[threading.Thread, Any] = {}

    def events(self, positions: Mapping[str, int]) -> Generator[Event, None, None]:
        ledger = WatchLedger(positions, len(self._methods))
        followers = [
            threading.Thread(target=self._follow, args=(ledger, source, ids), daemon=True)
            for ids in ledger.chunks()
            for source in range(len(self._methods))
        ]
        for follower in followers:
            follower.start()
        try:
            while not ledger.done and not self._abandoned.is_set():
                try:
                    source, incoming = self._incoming.get(timeout=LOOK_S)
                except Empty:
                    continue
                yield from ledger.read(source, incoming)
                self._incoming.task_done()
        finally:
            self._closed.set()
            for follower in followers:
                while follower.is_alive():
                    if (call := self._calls.get(follower)) is not None:
                        call.cancel()
                    follower.join(LOOK_S)
        ledger.check_end()

    def _follow(self, ledger: WatchLedger, source: int, ids: Sequence[str]) -> None:
        failures, lost_at_s = 0, None
        while not self._closed.is_set() and (wanted := ledger.wanted(source, ids)).positions:
            error: RankServeError = ConnectionFailed(f"the server at {self._target} ended the stream")
            call = self._calls[threading.current_thread()] = self._methods[source](
                wanted, metadata=self._metadata
            )
            try:
                for response in call:
                    failures, lost_at_s = 0, None
                    self._put(source, list(events_from_proto(response.events)))
            except grpc.RpcError as problem:
                error = from_rpc_error(problem, self._target)
            # What was read counts only once the consumer has it.
            while self._incoming.unfinished_tasks and not self._closed.wait(LOOK_S):
                pass
            if self._closed.is_set() or not ledger.wanted(source, ids).positions:
                return
            if not isinstance(error, Unavailable):
                self._put(source, error)
                return
            lost_at_s = lost_at_s or time.monotonic()
            if time.monotonic() - lost_at_s >= self._patience_s:
                self._put(source, Unreachable(ids, error))
                return
            failures += 1
            self._closed.wait(self._retry.backoff_s(failures))

    def _put(self, source: int, incoming: Incoming) -> None:
        while not self._closed.is_set():
            try:
                self._incoming.put((source, incoming), timeout=LOOK_S)
            except Full:
                continue
            return
