"""The routes, and what all of them have in common."""

from collections.abc import Callable
from http import HTTPStatus
from time import time

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from rankserve.server.dispatcher import Dispatcher
from rankserve.server.errors import InternalFailure, RequestError
from rankserve.server.front_door.answer_endpoint import AnswerEndpoint
from rankserve.server.front_door.authentication import Authentication, FindPrincipal
from rankserve.server.front_door.bodies import ChatBody, CompletionBody
from rankserve.server.front_door.errors import HttpError, to_failure
from rankserve.server.front_door.formats import ChatFormat, TextFormat
from rankserve.server.front_door.reading import BodyReader
from rankserve.server.front_door.served_models import ServedModels
from rankserve.server.lifecycle import Lifecycle, State
from rankserve.server.rpc.interceptors.open_streams import OpenStreams
from rankserve.server.rpc.stats import StatsSource
from rankserve.server.settings import ServerSettings

log = structlog.get_logger(__name__)

# JSON may spell each byte of a prompt with six ("\u0001"); the rest is for everything that is not prompt.
_BYTES_PER_PROMPT_BYTE = 6
_OTHER_BYTES = 256 << 10
_BODY_TIMEOUT_S = 30.0
_KEEP_ALIVE_S = 15.0


def front_door(
    dispatcher: Dispatcher,
    lifecycle: Lifecycle,
    stats: StatsSource,
    streams: OpenStreams,
    settings: ServerSettings,
    find: FindPrincipal | None,
    *,
    wall_clock: Callable[[], float] = time,
    body_timeout_s: float = _BODY_TIMEOUT_S,
    keep_alive_s: float = _KEEP_ALIVE_S,
) -> Starlette:
    """The OpenAI-compatible API as an application.

    Args:
        dispatcher, lifecycle, stats, streams, settings: the server's.
        find: the holder of a token, None for a token that is nobody's. None lets everybody do everything.
        wall_clock: Unix time.
        body_timeout_s: for a body to arrive.
        keep_alive_s: longest silence of a stream.
    """
    models = ServedModels(lambda: dispatcher.engine, settings.served_model_name, wall_clock())
    bodies = BodyReader(
        settings.max_prompt_bytes * _BYTES_PER_PROMPT_BYTE + _OTHER_BYTES,
        settings.max_waiting_bytes,
        body_timeout_s,
    )
    shared = (dispatcher, settings, stats, streams, bodies, models, keep_alive_s)

    async def health(request: Request) -> JSONResponse:
        state = lifecycle.state
        serving = state in (State.SERVING, State.PAUSED)
        return JSONResponse(
            {"status": state.value}, HTTPStatus.OK if serving else HTTPStatus.SERVICE_UNAVAILABLE
        )

    completions = AnswerEndpoint(CompletionBody, TextFormat(), *shared)
    chat = AnswerEndpoint(ChatBody, ChatFormat(), *shared)
    return Starlette(
        routes=[
            Route("/health", health),
            Route("/v1/models", models.list),
            Route("/v1/models/{model:path}", models.get),
            Route("/v1/completions", completions, methods=["POST"]),
            Route("/v1/chat/completions", chat, methods=["POST"]),
        ],
        middleware=[Middleware(Authentication, find=find)],
        exception_handlers={
            RequestError: _on_error,
            HttpError: _on_error,
            HTTPException: _on_http_exception,
            Exception: _on_fault,
        },
    )


async def _on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError | HttpError)
    return to_failure(error).response(_request_id(request))


async def _on_http_exception(request: Request, error: Exception) -> Response:
    """Unknown paths and methods, which Starlette answers in plain text."""
    assert isinstance(error, HTTPException)
    code = HTTPStatus(error.status_code).name.lower()
    if error.status_code == HTTPStatus.NOT_FOUND:
        message = f"there is no {request.method} {request.url.path[:128]}; docs/openai.md lists what there is"
    else:
        message = f"{request.url.path[:128]} does not take {request.method}"
    failure = HttpError(error.status_code, code, message, headers=dict(error.headers or {}))
    return to_failure(failure).response()


async def _on_fault(request: Request, error: Exception) -> Response:
    log.error("http_request_failed", path=request.url.path, request_id=_request_id(request))
    return to_failure(InternalFailure()).response(_request_id(request))


def _request_id(request: Request) -> str | None:
    return getattr(request.state, "request_id", None)
