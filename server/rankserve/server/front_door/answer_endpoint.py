"""`POST /v1/completions` and `POST /v1/chat/completions`, which differ in bodies and formats alone."""

from contextlib import suppress

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from rankserve.server.dispatcher import Dispatcher
from rankserve.server.errors import InvalidRequest, RequestError
from rankserve.server.events import EventStream
from rankserve.server.front_door.authentication import check_may_submit
from rankserve.server.front_door.bodies import Body, parse_body
from rankserve.server.front_door.formats import AnswerFormat
from rankserve.server.front_door.reading import BodyReader
from rankserve.server.front_door.sending import (
    Asked,
    StreamedAnswer,
    send_whole,
    unless_disconnected,
)
from rankserve.server.front_door.served_models import ServedModels
from rankserve.server.front_door.translation import as_parameter, body_to_spec, new_request_id
from rankserve.server.front_door.unsupported import refuse_unsupported
from rankserve.server.requests import RequestSpec
from rankserve.server.rpc.interceptors.open_streams import OpenStreams
from rankserve.server.rpc.request_ids import bind_id
from rankserve.server.rpc.stats import StatsSource
from rankserve.server.settings import ServerSettings


class AnswerEndpoint:
    """An ASGI application. What goes wrong before its response begins is raised.

    Args:
        kind: of body.
        answer_format: of answers.
        dispatcher, settings, stats, streams: the server's.
        bodies, models: shared by the endpoints.
        keep_alive_s: longest silence of a stream.
    """

    def __init__(
        self,
        kind: type[Body],
        answer_format: AnswerFormat,
        dispatcher: Dispatcher,
        settings: ServerSettings,
        stats: StatsSource,
        streams: OpenStreams,
        bodies: BodyReader,
        models: ServedModels,
        keep_alive_s: float,
    ) -> None:
        self._kind = kind
        self._format = answer_format
        self._dispatcher = dispatcher
        self._settings = settings
        self._stats = stats
        self._streams = streams
        self._bodies = bodies
        self._models = models
        self._keep_alive_s = keep_alive_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        check_may_submit()
        request = Request(scope, receive)
        with suppress(ClientDisconnect), self._streams.hold():
            fields = await self._bodies.read(request)
            refuse_unsupported(fields)
            body = parse_body(self._kind, fields)
            asked = Asked(
                request_id=body.request_id or request.headers.get("x-request-id") or new_request_id(),
                model=self._models.resolve(body.model),
                format=self._format,
                include_usage=body.include_usage,
            )
            bind_id(asked.request_id)
            spec = self._to_spec(body, asked.request_id)
            # From here on it is an id, which the response may repeat.
            request.state.request_id = asked.request_id
            try:
                await self._answer(spec, asked, bool(body.stream), scope, receive, send)
            except InvalidRequest as error:
                raise as_parameter(error, body) from None

    def _to_spec(self, body: Body, request_id: str) -> RequestSpec:
        try:
            return body_to_spec(
                body,
                request_id=request_id,
                # By the engine's name, whatever the client calls it: a retry by another name is the same.
                model=self._models.engine_name(body.model),
                max_prompt_bytes=self._settings.max_prompt_bytes,
                keep_body=self._dispatcher.journal.keeps,
            )
        except RequestError as error:
            self._dispatcher.refused(error)
            raise

    async def _answer(
        self, spec: RequestSpec, asked: Asked, streamed: bool, scope: Scope, receive: Receive, send: Send
    ) -> None:
        stream = EventStream()
        self._stats.open_streams += 1
        try:
            self._dispatcher.submit(spec, stream)
            stream.complete()
            if streamed:
                answer = StreamedAnswer(
                    stream,
                    asked,
                    send,
                    flush_interval_s=self._settings.flush_interval_ms / 1000,
                    keep_alive_s=self._keep_alive_s,
                ).run()
            else:
                answer = send_whole(stream, asked, scope, receive, send)
            await unless_disconnected(receive, answer)
        finally:
            self._stats.open_streams -= 1
            self._dispatcher.stream_lost(stream)
