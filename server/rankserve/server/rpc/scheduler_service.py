"""`SchedulerService`: the streams between clients and the dispatcher."""

import asyncio
from collections.abc import AsyncIterator, Callable
from time import monotonic

import grpc

from rankserve.server.dispatcher import Dispatcher
from rankserve.server.errors import RequestError
from rankserve.server.events import EventStream
from rankserve.server.rpc.errors import abort
from rankserve.server.rpc.messages import events_to_messages, request_state
from rankserve.server.rpc.validation import to_spec
from rankserve.server.settings import ServerSettings
from rankserve.v1 import scheduler_pb2 as pb
from rankserve.v1.scheduler_pb2_grpc import SchedulerServiceServicer

Context = grpc.aio.ServicerContext[object, object]


class SchedulerService(SchedulerServiceServicer):
    """Holds no state of its own beyond the open calls."""

    def __init__(
        self, dispatcher: Dispatcher, settings: ServerSettings, clock: Callable[[], float] = monotonic
    ) -> None:
        self._dispatcher = dispatcher
        self._settings = settings
        self._clock = clock
        self._started_s = clock()
        self._submit_streams: set[EventStream] = set()
        self.open_calls = 0

    def end_streams(self) -> None:
        """Takes no further request on any open stream; each ends with the terminal event of its last one."""
        for stream in self._submit_streams:
            stream.complete()

    async def Submit(
        self, request_iterator: AsyncIterator[pb.SubmitRequest], context: Context
    ) -> AsyncIterator[pb.SubmitResponse]:
        stream = EventStream()
        self._submit_streams.add(stream)
        self.open_calls += 1
        reader = asyncio.create_task(self._read(request_iterator, stream))
        try:
            async for events in self._flushes(stream):
                yield pb.SubmitResponse(events=events)
            if reader.done():
                await reader
        finally:
            self._submit_streams.discard(stream)
            self.open_calls -= 1
            reader.cancel()
            self._dispatcher.stream_lost(stream)

    async def Generate(
        self, request: pb.GenerateRequest, context: Context
    ) -> AsyncIterator[pb.GenerateResponse]:
        stream = EventStream()
        self.open_calls += 1
        try:
            self._submit(request.request, stream)
            stream.complete()
            async for events in self._flushes(stream):
                yield pb.GenerateResponse(events=events)
        except RequestError as error:
            await abort(context, error)
        finally:
            self.open_calls -= 1
            self._dispatcher.stream_lost(stream)

    async def CancelRequest(
        self, request: pb.CancelRequestRequest, context: Context
    ) -> pb.CancelRequestResponse:
        try:
            return pb.CancelRequestResponse(cancelled=self._dispatcher.cancel(request.request_id))
        except RequestError as error:
            await abort(context, error)

    async def GetRequest(self, request: pb.GetRequestRequest, context: Context) -> pb.GetRequestResponse:
        try:
            return request_state(self._dispatcher.find(request.request_id))
        except RequestError as error:
            await abort(context, error)

    async def GetStats(self, request: pb.GetStatsRequest, context: Context) -> pb.GetStatsResponse:
        dispatcher = self._dispatcher
        scheduler, engine, counters = dispatcher.scheduler, dispatcher.engine, dispatcher.counters
        active = dispatcher.ranker.active
        return pb.GetStatsResponse(
            policy=scheduler.policy.name,
            ranker_version=active.reference if active else "",
            engine=engine.name,
            time_scale=engine.time_scale,
            uptime_s=self._clock() - self._started_s,
            scoring=dispatcher.scoring,
            waiting=scheduler.waiting,
            running=scheduler.running,
            max_sequences=engine.capacity.max_sequences,
            max_batched_tokens=engine.capacity.max_batched_tokens,
            kv_blocks_used=engine.kv_blocks_used,
            kv_blocks_total=engine.capacity.kv_blocks,
            accepted_total=counters.accepted,
            finished_total=counters.finished,
            cancelled_total=counters.cancelled,
            expired_total=counters.expired,
            failed_total=counters.failed,
            refused_total=counters.refused,
            preemptions_total=scheduler.preemptions_total,
            promotions_total=scheduler.promotions_total,
            steps_total=scheduler.steps,
            output_tokens_total=counters.output_tokens,
            neutral_scores_total=dispatcher.ranker.neutral_total,
            engine_lag=engine.lag,
        )

    async def _read(self, messages: AsyncIterator[pb.SubmitRequest], stream: EventStream) -> None:
        try:
            async for message in messages:
                try:
                    self._submit(message.request, stream)
                except RequestError as error:
                    stream.refuse(message.request.id, error)
                await stream.room()
        except Exception:
            stream.break_off()
            raise
        stream.complete()

    def _submit(self, message: pb.InferenceRequest, stream: EventStream) -> None:
        spec = to_spec(
            message, max_prompt_bytes=self._settings.max_prompt_bytes, replay=self._settings.replay
        )
        self._dispatcher.submit(spec, stream)

    async def _flushes(self, stream: EventStream) -> AsyncIterator[list[pb.RequestEvent]]:
        """Messages' worth of events. The pause between two lets token events merge."""
        while events := await stream.take():
            yield events_to_messages(events)
            await asyncio.sleep(self._settings.flush_interval_ms / 1000)
