"""An engine behind the OpenAI API, as who measures it sees it: what it is, its load, its streams."""

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx2
import orjson

from rankserve.server.engines.measuring.errors import MeasureError
from rankserve.server.engines.openai.dialects import Dialect, dialect_of
from rankserve.server.engines.openai.errors import Broken
from rankserve.server.engines.openai.load import read_load
from rankserve.server.engines.openai.wire import Chunk, error_text, read_chunk

_CONNECT_S = 5.0
_CACHE_CONFIG = re.compile(r"^vllm:cache_config_info\{([^\n]*)\}", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


@dataclass(slots=True, frozen=True)
class About:
    """What an engine says of itself; None where it does not.

    Attributes:
        model: as it calls it.
        dialect: what kind of server it is.
        max_model_len: longest prompt plus answer.
        kv_blocks, block_size: of its KV cache.
        prefix_caching: whether it keeps the KV of what ended.
    """

    model: str
    dialect: Dialect
    max_model_len: int | None = None
    kv_blocks: int | None = None
    block_size: int | None = None
    prefix_caching: bool | None = None

    @property
    def kv_tokens(self) -> int | None:
        return None if self.kv_blocks is None or self.block_size is None else self.kv_blocks * self.block_size


class MeasuredEngine:
    """An async context manager; closed, it leaves nothing running.

    Args:
        url: of the API, with its version.
        model: as it calls it; empty for the first it has.
        api_key: sent if not empty.
        timeout_s: silence that is taken for the end.
    """

    def __init__(self, url: str, *, model: str = "", api_key: str = "", timeout_s: float = 120.0) -> None:
        self.url = url
        self._model = model
        self._client = httpx2.AsyncClient(
            headers={"authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx2.Timeout(timeout_s, connect=_CONNECT_S),
            trust_env=False,
            follow_redirects=False,
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=1024),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def about(self) -> About:
        """Asks what it is. Raises MeasureError."""
        response = await self._get(f"{self.url}/models")
        if response.status_code != 200:
            hint = ": does the URL end in /v1?" if response.status_code == 404 else ""
            said = _said(response.content)
            raise MeasureError(f"{self.url}/models: HTTP {response.status_code}: {said}{hint}")
        try:
            models = {str(model["id"]): model for model in orjson.loads(response.content)["data"]}
        except (ValueError, KeyError, TypeError):
            raise MeasureError(
                f"{self.url}/models is not of the OpenAI API: does the URL end in /v1?"
            ) from None
        if not models or (self._model and self._model not in models):
            has = ", ".join(list(models)[:10]) or "none"
            raise MeasureError(f"{self.url} has no model {self._model!r}; it has: {has}")
        self._model = self._model or next(iter(models))
        described = models[self._model]
        longest = described.get("max_model_len")
        blocks, size, caching = _cache_config(await self._metrics())
        return About(
            model=self._model,
            dialect=dialect_of(str(described.get("owned_by", ""))),
            max_model_len=longest if isinstance(longest, int) and longest > 0 else None,
            kv_blocks=blocks,
            block_size=size,
            prefix_caching=caching,
        )

    async def requests(self, dialect: Dialect) -> int | None:
        """How many it has at the moment; None if it does not say. Raises MeasureError."""
        if dialect.load is None:
            return None
        load = read_load(await self._metrics(), dialect.load)
        return None if load is None else load.running + load.waiting

    async def stream(self, prompt: str, max_tokens: int) -> AsyncGenerator[Chunk]:
        """An answer of exactly so many tokens, chunk by chunk. Raises MeasureError."""
        body = {
            "model": self._model,
            "prompt": prompt,
            "max_tokens": max_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        }
        async with aclosing(self._chunks(body)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _chunks(self, body: dict[str, Any]) -> AsyncGenerator[Chunk]:
        try:
            async with self._client.stream(
                "POST",
                f"{self.url}/completions",
                content=orjson.dumps(body),
                headers={"content-type": "application/json"},
            ) as response:
                if response.status_code != 200:
                    said = _said(await response.aread())
                    raise MeasureError(f"{self.url}/completions: HTTP {response.status_code}: {said}")
                async for event in httpx2.EventSource(response):
                    if event.data == "[DONE]":
                        return
                    yield read_chunk(event.data)
        except Broken as error:
            raise MeasureError(f"{self.url}/completions: {error}") from None
        except httpx2.HTTPError as error:
            raise MeasureError(
                f"{self.url}/completions: lost within an answer ({type(error).__name__})"
            ) from None

    async def _metrics(self) -> str:
        """Its metrics; empty if it has none."""
        response = await self._get(f"{self.url.removesuffix('/v1')}/metrics")
        return response.text if response.status_code == 200 else ""

    async def _get(self, url: str) -> httpx2.Response:
        try:
            return await self._client.get(url)
        except (httpx2.ConnectError, httpx2.ConnectTimeout):
            raise MeasureError(f"nobody answers at {self.url}: start the engine first") from None
        except httpx2.HTTPError as error:
            raise MeasureError(f"{url}: no answer ({type(error).__name__})") from None


def _cache_config(metrics: str) -> tuple[int | None, int | None, bool | None]:
    """KV blocks, their size, and whether prefixes are cached, where vLLM's metrics tell."""
    found = _CACHE_CONFIG.search(metrics)
    labels = dict(_LABEL.findall(found[1])) if found else {}
    numbers = [
        int(text) if (text := labels.get(name, "")).isdecimal() and int(text) else None
        for name in ("num_gpu_blocks", "block_size")
    ]
    caching = {"True": True, "False": False}.get(labels.get("enable_prefix_caching", ""))
    return numbers[0], numbers[1], caching


def _said(body: bytes) -> str:
    try:
        return error_text(orjson.loads(body))
    except ValueError:
        return body[:200].decode(errors="replace").strip() or "no reason given"
