"""An OpenAI-compatible endpoint: one request, one answer."""

import asyncio
import json
import time
from datetime import UTC, datetime
from types import TracebackType

import httpx2

from rankserve.trainer.collection.answers import Answer, check_status, read_answer
from rankserve.trainer.collection.errors import (
    CollectionError,
    EndpointError,
    PromptRefusedError,
    UnansweredError,
)
from rankserve.trainer.collection.prompts import Prompt
from rankserve.trainer.collection.redaction import redacted
from rankserve.trainer.collection.sampling import Sampling

# Far more than the text of 128k tokens.
MOST_RESPONSE_BYTES = 16 * 2**20


class Endpoint:
    """Asks for samples. An async context manager.

    Goes through no proxy, follows no redirect, reads a bounded number of bytes, and repeats neither key nor
    prompt in a message.

    Args:
        url: up to and with the version, as in ``http://127.0.0.1:8000/v1``.
        sampling: of every request.
        api_key: sent as a bearer token; empty for none.
        timeout_s: for a whole request, until its last byte.
        connections: most at a time.

    Raises:
        CollectionError: ``url`` is none, or holds what does not belong there; or the key is no token.
    """

    def __init__(
        self,
        url: str,
        sampling: Sampling,
        *,
        api_key: str = "",
        timeout_s: float = 600.0,
        connections: int = 16,
    ) -> None:
        self._target = f"{checked_url(url)}/{sampling.api.path}"
        self._sampling = sampling
        self._api_key = checked_key(api_key)
        self._timeout_s = timeout_s
        # No compression: a few bytes could become very many.
        headers = {"content-type": "application/json", "accept-encoding": "identity"}
        if self._api_key:
            headers["authorization"] = f"Bearer {self._api_key}"
        self._client = httpx2.AsyncClient(
            headers=headers,
            timeout=None,
            # A proxy of HTTP_PROXY would read key and prompts of plain http.
            trust_env=False,
            verify=httpx2.create_ssl_context(),
            follow_redirects=False,
            limits=httpx2.Limits(max_connections=connections, max_keepalive_connections=connections),
        )

    async def __aenter__(self) -> "Endpoint":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def ask(self, prompt: Prompt, sample: int) -> Answer:
        """One request for one sample.

        Raises:
            EndpointError: nothing will be answered.
            PromptRefusedError: this prompt will not.
            UnansweredError: no usable answer came, this time.
        """
        try:
            return await self._ask(prompt, sample)
        except EndpointError as error:
            raise EndpointError(self._safe(error, prompt)) from None
        except PromptRefusedError as error:
            raise PromptRefusedError(self._safe(error, prompt)) from None
        except UnansweredError as error:
            raise UnansweredError(self._safe(error, prompt), retry_after_s=error.retry_after_s) from None

    async def _ask(self, prompt: Prompt, sample: int) -> Answer:
        content = json.dumps(self._sampling.body(prompt, sample), ensure_ascii=False).encode()
        started_s = time.perf_counter()
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._client.stream("POST", self._target, content=content) as response,
            ):
                body = await _read(response)
        except TimeoutError:
            raise UnansweredError(f"no answer within {self._timeout_s:g} s (--timeout-s)") from None
        except httpx2.TransportError as error:
            raise UnansweredError(f"{type(error).__name__}: {error}".rstrip(": ")) from None
        check_status(response.status_code, response.headers, body, now=datetime.now(UTC))
        return read_answer(body, time.perf_counter() - started_s)

    def _safe(self, error: Exception, prompt: Prompt) -> str:
        return redacted(str(error), self._api_key, (message.content for message in prompt.messages))


async def _read(response: httpx2.Response) -> bytes:
    body = bytearray()
    async for part in response.aiter_raw():
        body += part
        if len(body) > MOST_RESPONSE_BYTES:
            raise UnansweredError(f"the response has more than {MOST_RESPONSE_BYTES:,} bytes")
    return bytes(body)


def checked_url(url: str) -> str:
    """The URL without a slash at its end. Raises CollectionError where it is no endpoint's."""
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL:
        parsed = httpx2.URL("")
    if parsed.userinfo or parsed.query or parsed.fragment:
        raise CollectionError(
            "--url must hold no user, password or query: put the API key in the variable that --api-key-env "
            "names"
        )
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise CollectionError(f"--url must be like http://127.0.0.1:8000/v1, got {url!r:.80}")
    return str(parsed).rstrip("/")


def checked_key(key: str) -> str:
    """The key without spaces around it. Raises CollectionError where no header can hold it."""
    key = key.strip()
    if any(not "!" <= character <= "~" for character in key):
        raise CollectionError("the API key holds spaces or characters beyond ASCII: check the variable")
    return key
