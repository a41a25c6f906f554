"""HTTP to one endpoint: whatever goes wrong is an `EndpointTrouble`."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from functools import cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from ssl import SSLContext
from time import time

import httpx2
import orjson

from rankserve.server.engines.openai.errors import Broken, Busy, EndpointTrouble, Refused, Unreachable
from rankserve.server.engines.openai.wire import error_text

_CONNECT_S = 2.0
# Everything beside answers has to be there by then.
_GET_S = 2.0
# Of what it says beside answers.
_MOST_BYTES = 4 << 20


class EndpointClient:
    """Goes through no proxy, follows no redirect, keeps no cookie, and repeats neither key nor prompt.

    Args:
        api_key: sent along, unless empty.
        timeout_s: silence after which an answer counts as lost.
    """

    def __init__(self, api_key: str, timeout_s: float) -> None:
        self._api_key = api_key
        self._client = httpx2.AsyncClient(
            # A few compressed bytes could become very many.
            headers={"content-type": "application/json", "accept-encoding": "identity"},
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            timeout=httpx2.Timeout(timeout_s, connect=_CONNECT_S),
            trust_env=False,
            verify=_ssl_context(),
            follow_redirects=False,
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=256),
        )

    def use_key(self, api_key: str) -> None:
        """From the next request on."""
        self._api_key = api_key

    async def get(self, url: str) -> bytes:
        """The body of a response that is well. Raises EndpointTrouble."""
        try:
            async with asyncio.timeout(_GET_S), self._stream("GET", url) as response:
                if response.status_code != 200:
                    raise Broken(f"{url}: HTTP {response.status_code}")
                return await _read(response)
        except TimeoutError:
            raise Broken(f"{url}: nothing within {_GET_S} s") from None

    async def events(self, url: str, body: bytes) -> AsyncGenerator[str]:
        """The data of the events that a request is answered with. Raises EndpointTrouble."""
        async with self._stream("POST", url, body) as response:
            if response.status_code != 200:
                raise await self._trouble(response)
            # As events always are, whatever it says.
            response.encoding = "utf-8"
            async for event in httpx2.EventSource(response):
                if event.data:
                    yield event.data

    async def aclose(self) -> None:
        await self._client.aclose()

    @asynccontextmanager
    async def _stream(
        self, method: str, url: str, body: bytes | None = None
    ) -> AsyncIterator[httpx2.Response]:
        headers = {"authorization": f"Bearer {self._api_key}"} if self._api_key else {}
        try:
            async with self._client.stream(method, url, content=body, headers=headers) as response:
                yield response
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            raise Unreachable(f"{url}: {type(error).__name__}") from None
        except httpx2.RequestError as error:
            raise Broken(f"{url}: {type(error).__name__}") from None

    async def _trouble(self, response: httpx2.Response) -> EndpointTrouble:
        try:
            async with asyncio.timeout(_GET_S):
                said = error_text(orjson.loads(await _read(response)))
        except (TimeoutError, ValueError):
            said = ""
        if self._api_key:
            said = said.replace(self._api_key, "***")
        status = response.status_code
        what = f"{response.url}: HTTP {status}"
        if status in (400, 413, 422):
            return Refused(said or f"HTTP {status}")
        if status in (429, 503):
            return Busy(what, _retry_after_s(response.headers.get("retry-after", "")))
        return Broken(what)


async def _read(response: httpx2.Response) -> bytes:
    body = bytearray()
    async for part in response.aiter_raw():
        body += part
        if len(body) > _MOST_BYTES:
            raise Broken(f"{response.url}: more than {_MOST_BYTES} bytes")
    return bytes(body)


def _retry_after_s(header: str) -> float:
    """Seconds, from either form of the header; 0 if it has none."""
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time())
    except (ValueError, TypeError, OverflowError):
        return 0.0


@cache
def _ssl_context() -> SSLContext:
    """One for all: it takes a while to make."""
    return httpx2.create_ssl_context()
