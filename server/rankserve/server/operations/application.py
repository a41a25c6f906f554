"""The HTTP application: `/metrics`, `/healthz`, `/readyz`, and the live page with its data."""

import base64
import hashlib
import re
from collections.abc import Awaitable, Callable
from importlib.resources import files

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rankserve.server.access.principal import Principal
from rankserve.server.metrics.registry import Metrics
from rankserve.server.operations.guard import Guard
from rankserve.server.operations.live_feed import LiveFeed, TooManyWatchersError, to_json

_READY = ("serving", "paused")


def operations_application(
    metrics: Metrics,
    feed: LiveFeed,
    guard: Guard,
    state: Callable[[], str],
    *,
    metrics_open: bool = False,
) -> Starlette:
    """What operators ask of a server.

    Args:
        metrics: for `/metrics`.
        feed: for the page, `/live` and `/live/events`.
        guard: who may see these. The probes are open: they say nothing but yes or no.
        state: of the server by name, for `/readyz`.
        metrics_open: whether `/metrics` is open as well.
    """
    page = files(__package__).joinpath("page.html").read_text(encoding="utf-8")

    async def show_metrics(request: Request) -> Response:
        body, content_type = metrics.scrape(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type})

    async def show_page(request: Request, principal: Principal) -> Response:
        return HTMLResponse(page)

    async def show_live(request: Request, principal: Principal) -> Response:
        return Response(to_json(feed.current(principal)), media_type="application/json")

    async def stream_live(request: Request, principal: Principal) -> Response:
        try:
            feed.join()
        except TooManyWatchersError:
            return PlainTextResponse("too many watch already; close a page\n", 503)
        return _WatcherResponse(feed, principal)

    async def healthz(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        now = state()
        return PlainTextResponse(f"{now}\n", 200 if now in _READY else 503)

    def guarded(
        show: Callable[[Request, Principal], Awaitable[Response]],
    ) -> Callable[..., Awaitable[Response]]:
        async def checked(request: Request) -> Response:
            admitted = guard.admit(request)
            return admitted if isinstance(admitted, Response) else await show(request, admitted)

        return checked

    async def show_metrics_to(request: Request, principal: Principal) -> Response:
        return await show_metrics(request)

    application = Starlette(
        routes=[
            Route("/", guarded(show_page)),
            Route("/live", guarded(show_live)),
            Route("/live/events", guarded(stream_live)),
            Route("/metrics", show_metrics if metrics_open else guarded(show_metrics_to)),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
        ]
    )
    application.add_middleware(_SecurityHeaders, policy=content_security_policy(page))
    return application


def content_security_policy(page: str) -> str:
    """Lets a page run the scripts and styles that it holds and fetch from its own server; nothing else."""
    scripts = " ".join(_hashes("script", page))
    styles = " ".join(_hashes("style", page))
    return (
        f"default-src 'none'; script-src {scripts}; style-src {styles}; connect-src 'self'; img-src data:;"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _hashes(tag: str, page: str) -> list[str]:
    contents = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(content.encode()).digest()).decode() for content in contents]
    return [f"'sha256-{digest}'" for digest in digests]


class _WatcherResponse(StreamingResponse):
    """A stream of events, and one watcher less once it is over, however it ends."""

    def __init__(self, feed: LiveFeed, principal: Principal) -> None:
        super().__init__(feed.watch(principal), media_type="text/event-stream")
        self._feed = feed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._feed.leave()


class _SecurityHeaders:
    def __init__(self, app: ASGIApp, policy: str) -> None:
        self._app = app
        self._headers = [
            (b"content-security-policy", policy.encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"x-frame-options", b"DENY"),
            (b"referrer-policy", b"no-referrer"),
            (b"cache-control", b"no-store"),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *self._headers]
            await send(message)

        await self._app(scope, receive, send_with_headers)
