"""Forwards HTTP to another server, byte for byte in both directions."""

import asyncio
from collections.abc import AsyncIterator
from http.cookiejar import CookieJar, DefaultCookiePolicy
from urllib.parse import unquote_to_bytes

import httpx2
import structlog
from starlette.types import Receive, Scope, Send

from rankserve.server.gateway.bodies import ArrivingBody, Bodies, ClientGoneError
from rankserve.server.gateway.errors import RefusalError
from rankserve.server.gateway.middleware import BODY_WAS_READ

log = structlog.get_logger(__name__)

# Of one connection, not of the message (RFC 9110, section 7.6.1).
_HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
# Of a request, and not for the upstream: it has a name of its own, and who expects a 100 has got it.
_ANSWERED_HERE = (b"host", b"expect")
# Below the time after which usual servers close an idle connection, which would be a lost request.
_KEEP_ALIVE_S = 4.0

Headers = list[tuple[bytes, bytes]]


class Forwarder:
    """An ASGI application: asks the upstream whatever it is asked, and gives its answer as it comes.

    Args:
        upstream: its address, such as ``http://127.0.0.1:8000``, with a path before all others if it has one.
        bodies: the bound on requests.
        connect_timeout_s: to reach the upstream.
        read_timeout_s: the longest silence of the upstream, before and within its answer.

    Attributes:
        unreachable_total: requests that the upstream could not be asked, or did not answer.
        open: requests that are being answered.
    """

    def __init__(
        self, upstream: str, bodies: Bodies, *, connect_timeout_s: float = 5.0, read_timeout_s: float = 600.0
    ) -> None:
        self.unreachable_total = 0
        self.open = 0
        self._upstream = httpx2.URL(upstream)
        self._before = self._upstream.raw_path.rstrip(b"/")
        self._bodies = bodies
        self._read_timeout_s = read_timeout_s
        self._client = httpx2.AsyncClient(
            timeout=httpx2.Timeout(read_timeout_s, connect=connect_timeout_s),
            limits=httpx2.Limits(
                max_connections=None, max_keepalive_connections=256, keepalive_expiry=_KEEP_ALIVE_S
            ),
            # They are between the client and the upstream.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            follow_redirects=False,
            trust_env=False,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.open += 1
        try:
            await self._forward(scope, receive, send)
        except RefusalError as refusal:
            await refusal.send(send)
        except ClientGoneError:
            pass
        finally:
            self.open -= 1

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _forward(self, scope: Scope, receive: Receive, send: Send) -> None:
        target = self._target(scope)
        headers: Headers = scope["headers"]
        has_body = any(name.lower() in (b"content-length", b"transfer-encoding") for name, _ in headers)
        arriving = self._bodies.arriving(receive, any_size=BODY_WAS_READ in scope)
        body = _Body(arriving) if has_body else None
        request = httpx2.Request(
            scope["method"],
            self._upstream,
            headers=[(b"host", self._host()), *_end_to_end(headers, dropped=_ANSWERED_HERE)],
            content=None if body is None else body.chunks(),
            # Sent as it is; a URL would be written anew.
            extensions={"timeout": self._client.timeout.as_dict(), "target": target},
        )
        answering = asyncio.create_task(self._answer(request, send))
        leaving = asyncio.create_task(_gone(receive, body))
        try:
            await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            # If it is not done: the connection to the upstream closes, which then stops.
            answering.cancel()
            leaving.cancel()
            await asyncio.gather(answering, leaving, return_exceptions=True)
        if not answering.cancelled():
            answering.result()

    async def _answer(self, request: httpx2.Request, send: Send) -> None:
        try:
            response = await self._client.send(request, stream=True)
        except (httpx2.ConnectTimeout, httpx2.ReadTimeout, httpx2.WriteTimeout, httpx2.PoolTimeout) as error:
            raise self._unreachable(504, "upstream_timeout", "did not answer in time", error) from None
        except httpx2.ConnectError as error:
            raise self._unreachable(502, "upstream_unreachable", "cannot be reached", error) from None
        except httpx2.TransportError as error:
            raise self._unreachable(502, "upstream_broke_off", "broke off without an answer", error) from None
        try:
            await send(
                {
                    "type": "http.response.start",
                    "status": response.status_code,
                    "headers": _end_to_end(response.headers.raw),
                }
            )
            async for chunk in response.aiter_raw():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except httpx2.TransportError as error:
            # Without the end of the body, so that the client sees that it is missing.
            log.warning("upstream_broke_off", error=type(error).__name__)
            return
        finally:
            await response.aclose()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _unreachable(self, status: int, code: str, problem: str, error: Exception) -> RefusalError:
        self.unreachable_total += 1
        log.warning(code, status=status, error=type(error).__name__)
        return RefusalError(status, code, f"the engine behind this proxy {problem}")

    def _target(self, scope: Scope) -> bytes:
        """What to ask the upstream for, as the client wrote it.

        Raises:
            RefusalError: it is no path, or one that others than its author may read as another one.
        """
        path: bytes = scope.get("raw_path") or scope["path"].encode()
        if not path.startswith(b"/") or b"#" in path:
            raise RefusalError(400, "invalid_path", "ask for a path, which begins with a slash")
        if any(segment in (b".", b"..") for segment in unquote_to_bytes(path).split(b"/")):
            raise RefusalError(400, "invalid_path", "the path must not have the segments . and ..")
        query: bytes = scope.get("query_string", b"")
        return self._before + path + (b"?" + query if query else b"")

    def _host(self) -> bytes:
        return self._upstream.netloc


class _Body:
    """The body of a request on its way.

    Attributes:
        given: set once all of it is.
    """

    def __init__(self, arriving: ArrivingBody) -> None:
        self.given = asyncio.Event()
        self._arriving = arriving

    async def chunks(self) -> AsyncIterator[bytes]:
        while not self._arriving.complete:
            if chunk := await self._arriving.chunk():
                yield chunk
        self.given.set()


async def _gone(receive: Receive, body: _Body | None) -> None:
    """Returns when the client is."""
    if body is not None:
        await body.given.wait()
    while (await receive())["type"] != "http.disconnect":
        pass


def _end_to_end(headers: Headers, dropped: tuple[bytes, ...] = ()) -> Headers:
    named = {
        option.strip().lower()
        for name, value in headers
        if name.lower() == b"connection"
        for option in value.split(b",")
    }
    gone = _HOP_BY_HOP | named | frozenset(dropped)
    return [(name, value) for name, value in headers if name.lower() not in gone]


def check_upstream(url: str) -> str:
    """The address of an HTTP server, without the /v1 of OpenAI's API. Raises ValueError if it is none."""
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL:
        parsed = httpx2.URL("")
    odd = parsed.query or parsed.fragment or parsed.userinfo
    if parsed.scheme not in ("http", "https") or not parsed.host or odd:
        raise ValueError("must be an address such as http://127.0.0.1:8000")
    return url.rstrip("/").removesuffix("/v1")
