"""A client of one `Submit` stream that records all it is told, and judges it against the API's promises."""

import asyncio
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import grpc
from support.messages import inference
from support.server_process import Connection

from rankserve.v1 import scheduler_pb2 as pb

if TYPE_CHECKING:
    from rankserve.v1.scheduler_pb2_grpc import SchedulerServiceAsyncStub

_TIMEOUT_S = 60.0
_KINDS = {"accepted": "a", "queued": "q", "tokens": "t", "finished": "F", "failed": "X"}
# A request refused at the door has only `failed`; one that ends before it was scored was never queued.
_LIFE = re.compile("X|aX|aqt*[FX]")


class History:
    """The events of many requests in the order they came.

    Attributes:
        ended_s: when each terminal event came, by `time.perf_counter`.
    """

    def __init__(self) -> None:
        self.ended_s: dict[str, float] = {}
        self.events: list[pb.RequestEvent] = []
        self.by_id: defaultdict[str, list[pb.RequestEvent]] = defaultdict(list)
        self.ids_with: defaultdict[str, set[str]] = defaultdict(set)

    def add(self, events: Iterable[pb.RequestEvent]) -> None:
        for event in events:
            self.events.append(event)
            self.by_id[event.request_id].append(event)
            kind = event.WhichOneof("event") or "nothing"
            self.ids_with[kind].add(event.request_id)
            if kind in ("finished", "failed"):
                self.ended_s[event.request_id] = time.perf_counter()

    @property
    def ended(self) -> set[str]:
        """Ids of the requests that had their terminal event."""
        return self.ids_with["finished"] | self.ids_with["failed"]

    def kinds(self, request_id: str) -> list[str]:
        return [event.WhichOneof("event") or "nothing" for event in self.by_id[request_id]]

    def tokens(self, request_id: str) -> int:
        """Tokens received so far."""
        return sum(event.tokens.count for event in self.by_id[request_id])

    def text(self, request_id: str) -> str:
        return "".join(event.tokens.text for event in self.by_id[request_id])

    def queued(self, request_id: str) -> pb.Queued:
        return next(event.queued for event in self.by_id[request_id] if event.HasField("queued"))

    def result(self, request_id: str) -> pb.RequestResult:
        last = self.by_id[request_id][-1]
        assert last.HasField("finished"), f"{request_id} did not finish: {last}"
        return last.finished

    def failure(self, request_id: str) -> pb.RequestFailure:
        last = self.by_id[request_id][-1]
        assert last.HasField("failed"), f"{request_id} did not fail: {last}"
        return last.failed

    def order_of(self, kind: str) -> list[str]:
        """Request ids in the order of their events of this kind."""
        return [event.request_id for event in self.events if event.WhichOneof("event") == kind]

    def check(self, request_ids: Iterable[str] | None = None) -> None:
        """Raises AssertionError unless each request lived as the API promises and has ended.

        accepted < queued < tokens < one terminal event; offsets contiguous from 0; tokens add up to what
        the terminal event states, unless the request was `result_only`.
        """
        for request_id in self.by_id if request_ids is None else request_ids:
            kinds = self.kinds(request_id)
            assert _LIFE.fullmatch("".join(_KINDS[kind] for kind in kinds)), f"{request_id}: {kinds}"
            received = 0
            for event in self.by_id[request_id]:
                if event.HasField("tokens"):
                    assert event.tokens.offset == received, f"{request_id}: token {received} is missing"
                    assert event.tokens.count > 0, f"{request_id}: an empty chunk"
                    received += event.tokens.count
            last = self.by_id[request_id][-1]
            if last.HasField("failed"):
                assert received == last.failed.output_tokens, request_id
            elif not last.finished.text:
                assert received == last.finished.output_tokens, request_id


class SubmitStream:
    """One `Submit` call. An async context manager: leaving it without `finish` loses the stream."""

    def __init__(self, stub: "SchedulerServiceAsyncStub", metadata: tuple[tuple[str, str], ...] = ()) -> None:
        self.history = History()
        self._call = stub.Submit(metadata=metadata)
        self._changed = asyncio.Condition()
        self._over = False
        self._reader = asyncio.create_task(self._read())

    async def __aenter__(self) -> "SubmitStream":
        return self

    async def __aexit__(self, *_: object) -> None:
        self.lose()
        await asyncio.wait({self._reader})

    async def send(self, *requests: pb.InferenceRequest) -> None:
        for request in requests:
            await self._call.write(pb.SubmitRequest(request=request))

    async def send_together(self, *requests: pb.InferenceRequest) -> None:
        """Sends them in one message."""
        await self._call.write(pb.SubmitRequest(requests=requests))

    async def until(self, condition: Callable[[History], bool]) -> None:
        """Waits until the history fulfils the condition.

        Raises:
            AssertionError: the stream ended first, or nothing of the kind happened for a long time.
        """
        async with asyncio.timeout(_TIMEOUT_S), self._changed:
            await self._changed.wait_for(lambda: condition(self.history) or self._over)
        assert condition(self.history), f"the stream ended early: {await self._call.code()}"

    async def until_all(self, kind: str, request_ids: Iterable[str]) -> None:
        wanted = set(request_ids)
        await self.until(lambda history: wanted <= history.ids_with[kind])

    async def until_ended(self, *request_ids: str) -> None:
        await self.until(lambda history: history.ended.issuperset(request_ids))

    async def half_close(self) -> None:
        await self._call.done_writing()

    async def ended(self) -> grpc.StatusCode:
        """Waits for the server to end the stream; returns its status."""
        async with asyncio.timeout(_TIMEOUT_S):
            await asyncio.wait({self._reader})
            return await self._call.code()

    async def finish(self) -> History:
        """Half-closes; waits for the end, which must be OK and leave each request with its whole life."""
        await self.half_close()
        status = await self.ended()
        assert status is grpc.StatusCode.OK, f"{status}: {await self._call.details()}"
        self.history.check()
        return self.history

    def lose(self) -> None:
        """Breaks the stream, as a client that dies does."""
        self._call.cancel()

    async def _read(self) -> None:
        try:
            async for response in self._call:
                async with self._changed:
                    self.history.add(response.events)
                    self._changed.notify_all()
        except (grpc.aio.AioRpcError, asyncio.CancelledError):
            # The status tells what happened; `ended` and `until` read it.
            pass
        finally:
            self._over = True
            async with self._changed:
                self._changed.notify_all()


async def submit_without_reading(
    connection: Connection, count: int
) -> grpc.aio.StreamStreamCall[pb.SubmitRequest, pb.SubmitResponse]:
    """Submits requests with 4 KB of metadata, which their results carry back; reads no answer."""
    call = connection.scheduler.Submit()
    metadata = {f"{n:02}": "v" * 250 for n in range(16)}
    for n in range(count):
        request = inference(f"unread-{n}", output=5, metadata=metadata)
        await call.write(pb.SubmitRequest(request=request))
    return call
