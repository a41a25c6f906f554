"""The routes of a fake engine."""

import hmac
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from rankserve.server.engines.fake.bodies import (
    ChatBody,
    CompletionBody,
    FaultsBody,
    TokenizeBody,
    parse_body,
    read_fields,
)
from rankserve.server.engines.fake.core import Core
from rankserve.server.engines.fake.endpoint import AnswerEndpoint
from rankserve.server.engines.fake.errors import EngineError
from rankserve.server.engines.fake.formats import ChatFormat, TextFormat
from rankserve.server.engines.fake.metrics import metrics_registry
from rankserve.server.engines.fake.prompts import token_ids

_Handler = Callable[[Request], Coroutine[Any, Any, Response]]


def fake_engine_application(core: Core) -> Starlette:
    """The API of vLLM's that the engine has, and what tests ask it beside."""
    return Starlette(
        routes=[
            Route("/v1/completions", AnswerEndpoint(core, CompletionBody, TextFormat()), methods=["POST"]),
            Route("/v1/chat/completions", AnswerEndpoint(core, ChatBody, ChatFormat()), methods=["POST"]),
            Route("/v1/models", _models(core)),
            Route("/tokenize", _tokenize(core), methods=["POST"]),
            Route("/health", _health(core)),
            Route("/metrics", _metrics(core)),
            Route("/requests", _requests(core)),
            Route("/faults", _faults(core), methods=["GET", "POST", "DELETE"]),
        ],
        middleware=[Middleware(_Authentication, api_key=core.settings.api_key)],
        exception_handlers={EngineError: _on_error, HTTPException: _on_http_exception},
    )


class _Authentication:
    """Asks for the key where vLLM does: below /v1."""

    def __init__(self, application: ASGIApp, api_key: str | None) -> None:
        self._application = application
        self._expected = None if api_key is None else f"bearer {api_key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._expected is not None and scope["path"].startswith("/v1"):
            scheme, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
            if not hmac.compare_digest(f"{scheme.lower()} {key}".encode(), self._expected):
                await JSONResponse({"error": "Unauthorized"}, 401)(scope, receive, send)
                return
        await self._application(scope, receive, send)


def _models(core: Core) -> _Handler:
    async def models(request: Request) -> Response:
        settings = core.settings
        cards: list[dict[str, Any]] = [
            {
                "id": name,
                "object": "model",
                "created": core.heading("").created,
                "owned_by": "vllm",
                "root": settings.models[0],
                "parent": None,
                "max_model_len": settings.max_model_len,
                "permission": [],
            }
            for name in settings.models
        ]
        return JSONResponse({"object": "list", "data": cards})

    return models


def _tokenize(core: Core) -> _Handler:
    async def tokenize(request: Request) -> Response:
        body = parse_body(TokenizeBody, await read_fields(request))
        core.check_model(body.model)
        tokens = token_ids(body.text)
        return JSONResponse(
            {
                "count": len(tokens),
                "max_model_len": core.settings.max_model_len,
                "tokens": tokens,
                "token_strs": body.text.split() if body.return_token_strs else None,
            }
        )

    return tokenize


def _health(core: Core) -> _Handler:
    async def health(request: Request) -> Response:
        return Response(status_code=200 if core.healthy else 503)

    return health


def _metrics(core: Core) -> _Handler:
    registry = metrics_registry(core)

    async def metrics(request: Request) -> Response:
        return Response(generate_latest(registry), headers={"content-type": CONTENT_TYPE_LATEST})

    return metrics


def _requests(core: Core) -> _Handler:
    async def requests(request: Request) -> Response:
        records = [record.to_json() for record in core.records]
        return JSONResponse({"total": core.records.total, "requests": records})

    return requests


def _faults(core: Core) -> _Handler:
    async def faults(request: Request) -> Response:
        if request.method == "DELETE":
            core.faults.clear()
            core.healthy = True
        elif request.method == "POST":
            body = parse_body(FaultsBody, await read_fields(request))
            try:
                core.faults.set_all({kind: fault.model_dump() for kind, fault in body.faults.items()})
            except ValueError as error:
                raise EngineError(400, str(error), param="faults") from None
            core.healthy = core.healthy if body.healthy is None else body.healthy
        return JSONResponse({"healthy": core.healthy, **core.faults.to_json()})

    return faults


async def _on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, EngineError)
    return error.response()


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    phrase = HTTPStatus(error.status_code).phrase
    return EngineError(error.status_code, error.detail, kind=phrase).response()
