"""`SchedulerService`: the streams between clients and the dispatcher."""

import asyncio
import re
from collections.abc import AsyncIterator

import grpc

from rankserve.server.access.principal import current_principal
from rankserve.server.dispatcher import Dispatcher
from rankserve.server.errors import InvalidRequest, RequestError, SlowClient
from rankserve.server.events import EventStream
from rankserve.server.requests import LiveRequest
from rankserve.server.rpc.errors import abort
from rankserve.server.rpc.messages import add_events, request_state, request_summary, state_of
from rankserve.server.rpc.request_ids import bind_id
from rankserve.server.rpc.stats import StatsSource
from rankserve.server.rpc.validation import to_spec
from rankserve.server.settings import ServerSettings
from rankserve.server.slices import in_slices
from rankserve.v1 import scheduler_pb2 as pb
from rankserve.v1.scheduler_pb2_grpc import SchedulerServiceServicer

Context = grpc.aio.ServicerContext[object, object]

_MAX_WATCHED = 1000
_PAGE, _MAX_PAGE = 100, 1000
_PAGE_TOKEN = re.compile("[0-9]{1,18}")
# Requests that one page looks at: a filter that few match gives short pages instead of a long pause.
_MAX_SCANNED = 10_000
_MIN_INTERVAL_MS, _INTERVAL_MS, _MAX_INTERVAL_MS = 100, 1000, 60_000

_Response = pb.SubmitResponse | pb.GenerateResponse | pb.WatchResponse


class SchedulerService(SchedulerServiceServicer):
    """Holds no state of its own beyond the open calls.

    Its streams write to the context instead of yielding, since only a write can be given up on.
    """

    def __init__(self, dispatcher: Dispatcher, settings: ServerSettings, stats: StatsSource) -> None:
        self._dispatcher = dispatcher
        self._settings = settings
        self._stats = stats
        self._streams: set[EventStream] = set()
        self._stopping = asyncio.Event()

    @property
    def open_streams(self) -> int:
        return len(self._streams)

    def end_streams(self) -> None:
        """Takes no further request on any open stream; each ends with the terminal event of its last one."""
        self._stopping.set()
        for stream in self._streams:
            stream.complete()

    async def Submit(  # type: ignore[override]
        self, request_iterator: AsyncIterator[pb.SubmitRequest], context: Context
    ) -> None:
        stream = EventStream(max_pending=self._settings.max_stream_events)
        reader = asyncio.create_task(self._read(request_iterator, stream))
        try:
            error = await self._send(stream, pb.SubmitResponse, context)
            if error is None and reader.done():
                await reader
        finally:
            reader.cancel()
            # Retrieves what it raised: nobody else asks once the stream has ended in another way.
            await asyncio.gather(reader, return_exceptions=True)
        await _end(context, error)

    async def Generate(  # type: ignore[override]
        self, request: pb.GenerateRequest, context: Context
    ) -> None:
        stream = EventStream()
        try:
            self._submit(request.request, stream)
        except RequestError as error:
            await abort(context, error)
        stream.complete()
        await _end(context, await self._send(stream, pb.GenerateResponse, context))

    async def Watch(  # type: ignore[override]
        self, request: pb.WatchRequest, context: Context
    ) -> None:
        stream = EventStream(owns=False)
        try:
            _check_positions(request)
            for index, position in enumerate(request.positions):
                self._watch(position, index, stream)
        except RequestError as error:
            self._dispatcher.stream_lost(stream)
            await abort(context, error)
        stream.complete()
        await _end(context, await self._send(stream, pb.WatchResponse, context))

    async def CancelRequest(
        self, request: pb.CancelRequestRequest, context: Context
    ) -> pb.CancelRequestResponse:
        try:
            live = self._find(request.request_id)
            cancelled = self._dispatcher.cancel(live.spec.id)
        except RequestError as error:
            await abort(context, error)
        await self._dispatcher.durable()
        return pb.CancelRequestResponse(cancelled=cancelled)

    async def GetRequest(self, request: pb.GetRequestRequest, context: Context) -> pb.GetRequestResponse:
        try:
            live = self._find(request.request_id)
        except RequestError as error:
            await abort(context, error)
        if not live.told_accepted:
            await self._dispatcher.durable()
        return request_state(live)

    async def ListRequests(
        self, request: pb.ListRequestsRequest, context: Context
    ) -> pb.ListRequestsResponse:
        try:
            return self._page(request)
        except RequestError as error:
            await abort(context, error)

    async def GetStats(self, request: pb.GetStatsRequest, context: Context) -> pb.GetStatsResponse:
        return self._stats.read()

    async def WatchStats(
        self, request: pb.WatchStatsRequest, context: Context
    ) -> AsyncIterator[pb.WatchStatsResponse]:
        interval_ms = request.interval_ms or _INTERVAL_MS
        if not _MIN_INTERVAL_MS <= interval_ms <= _MAX_INTERVAL_MS:
            problem = f"must be 0 or between {_MIN_INTERVAL_MS} and {_MAX_INTERVAL_MS}"
            await abort(context, InvalidRequest("interval_ms", problem))
        while True:
            yield pb.WatchStatsResponse(stats=self._stats.read())
            try:
                async with asyncio.timeout(interval_ms / 1000):
                    await self._stopping.wait()
                return
            except TimeoutError:
                continue

    async def _read(self, messages: AsyncIterator[pb.SubmitRequest], stream: EventStream) -> None:
        try:
            async for message in messages:
                if message.HasField("request"):
                    self._submit_or_refuse(message.request, stream)
                async for some in in_slices(message.requests):
                    for request in some:
                        self._submit_or_refuse(request, stream)
                await stream.room()
        except Exception:
            stream.break_off()
            raise
        stream.complete()

    def _submit_or_refuse(self, message: pb.InferenceRequest, stream: EventStream) -> None:
        bind_id(message.id)
        try:
            self._submit(message, stream)
        except RequestError as error:
            stream.refuse(message.id, error)

    def _submit(self, message: pb.InferenceRequest, stream: EventStream) -> None:
        try:
            tenant = current_principal().tenant_for(message.tenant)
            if tenant != message.tenant:
                message.tenant = tenant
            spec = to_spec(
                message,
                max_prompt_bytes=self._settings.max_prompt_bytes,
                replay=self._settings.replay,
                keep_body=self._dispatcher.journal.keeps,
            )
        except RequestError as error:
            self._dispatcher.refused(error)
            raise
        self._dispatcher.submit(spec, stream)

    def _find(self, request_id: str) -> LiveRequest:
        live = self._dispatcher.find(request_id)
        current_principal().check_may_see(request_id, live.spec.tenant)
        return live

    def _watch(self, position: pb.WatchPosition, index: int, stream: EventStream) -> None:
        try:
            self._dispatcher.attach(self._find(position.request_id), stream, position.offset)
        except InvalidRequest as error:
            raise InvalidRequest(f"positions[{index}].offset", error.problem) from None
        except RequestError as error:
            stream.refuse(position.request_id, error)

    def _page(self, request: pb.ListRequestsRequest) -> pb.ListRequestsResponse:
        if request.page_size > _MAX_PAGE:
            raise InvalidRequest("page_size", f"must be at most {_MAX_PAGE}")
        if request.page_token and not _PAGE_TOKEN.fullmatch(request.page_token):
            raise InvalidRequest("page_token", "must be the next_page_token of the page before")
        principal = current_principal()
        response = pb.ListRequestsResponse()
        last = after = int(request.page_token or 0)
        for number, live in self._dispatcher.registry.after(after, _MAX_SCANNED):
            last = number
            if live is None or not live.told_accepted or not principal.may_see(live.spec.tenant):
                continue
            if request.HasField("tenant") and live.spec.tenant != request.tenant:
                continue
            if request.states and state_of(live) not in request.states:
                continue
            response.requests.append(request_summary(live))
            if len(response.requests) >= (request.page_size or _PAGE):
                break
        if last < self._dispatcher.registry.last_number:
            response.next_page_token = str(last)
        return response

    async def _send(
        self, stream: EventStream, response: type[_Response], context: Context
    ) -> RequestError | None:
        """Sends a stream's events until it ends, and returns the error it ends with, if it does.

        The pause between two messages lets events gather, and those of tokens merge. A client that reads
        nothing is noticed once the transport's own buffer is full.
        """
        self._streams.add(stream)
        self._stats.open_streams += 1
        if self._stopping.is_set():
            stream.complete()
        pause_s = self._settings.flush_interval_ms / 1000
        try:
            while events := await stream.take():
                message = response()
                add_events(events, message.events)
                try:
                    async with asyncio.timeout(self._settings.slow_client_s):
                        await context.write(message)
                except TimeoutError:
                    self._stats.slow_client()
                    stream.break_off()
                    return SlowClient(self._settings.slow_client_s)
                await asyncio.sleep(0 if stream.fills_a_message else pause_s)
            return stream.error
        finally:
            self._streams.discard(stream)
            self._stats.open_streams -= 1
            self._dispatcher.stream_lost(stream)


async def _end(context: Context, error: RequestError | None) -> None:
    # Everything is let go of before: a client that does not read may let the status wait for long, too.
    if error is not None:
        await abort(context, error)


def _check_positions(request: pb.WatchRequest) -> None:
    if not 1 <= len(request.positions) <= _MAX_WATCHED:
        raise InvalidRequest("positions", f"must be 1 to {_MAX_WATCHED}, got {len(request.positions)}")
    if len({position.request_id for position in request.positions}) < len(request.positions):
        raise InvalidRequest("positions", "must name each request once")
