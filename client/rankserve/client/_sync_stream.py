"""Many requests on one stream, without asyncio."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self

import grpc

from rankserve.client._batching import batches
from rankserve.client._channel import Metadata
from rankserve.client._convert import events_from_proto
from rankserve.client._exceptions import ConnectionFailed
from rankserve.client._status import from_rpc_error
from rankserve.client._types import Event, Request
from rankserve.v1 import scheduler_pb2


class SubmitStream:
    """Requests go out and the events of all of them come back, told apart by ``request_id``::

        with client.submit() as stream:
            stream.send_many(Request(prompt=prompt) for prompt in prompts)
            stream.done_sending()
            for event in stream:
                ...

    As AsyncSubmitStream; sending and iterating may happen in different threads.
    """

    def __init__(self, method: Callable[..., Any], metadata: Metadata, target: str) -> None:
        self._method = method
        self._metadata = metadata
        self._target = target
        self._call: Any = None
        self._outgoing: SimpleQueue[scheduler_pb2.SubmitRequest | None] = SimpleQueue()
        self._events: deque[Event] = deque()
        self._sent_all = False
        self._closed = False

    def __enter__(self) -> Self:
        self._call = self._method(self._messages(), metadata=self._metadata)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        self._call.cancel()
        self._outgoing.put(None)

    def send(self, request: Request) -> str:
        """Hands a request to the sending thread and returns its id.

        Raises:
            InvalidRequest: the request holds a value that cannot be sent.
            RankServeError: the stream is broken.
        """
        (request_id,) = self.send_many([request])
        return request_id

    def send_many(self, requests: Iterable[Request]) -> list[str]:
        """Hands over requests, many in a message, and returns their ids; see ``send``."""
        call = self._opened()
        if self._sent_all:
            raise RuntimeError("done_sending() was called: this stream takes no more requests")
        if not call.is_active():
            if call.code() is grpc.StatusCode.OK:
                raise ConnectionFailed(f"the server at {self._target} ended the stream")
            raise from_rpc_error(call, self._target)
        sent = []
        for packed, message in batches(requests):
            self._outgoing.put(message)
            sent += [request.id for request in packed]
        return sent

    def done_sending(self) -> None:
        """Says that no more requests come, so that the stream ends with the last open one."""
        self._sent_all = True
        self._outgoing.put(None)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        while not self._events:
            try:
                response = next(self._opened())
            except grpc.RpcError as error:
                raise from_rpc_error(error, self._target) from None
            self._events.extend(events_from_proto(response.events))
        return self._events.popleft()

    def _opened(self) -> Any:
        if self._call is None or self._closed:
            raise RuntimeError("use the stream inside `with client.submit() as stream`")
        return self._call

    def _messages(self) -> Iterator[scheduler_pb2.SubmitRequest]:
        while (message := self._outgoing.get()) is not None:
            yield message
