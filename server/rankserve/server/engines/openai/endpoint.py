"""One server of the OpenAI API: what it is, how it is, and its answers."""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from time import monotonic

import orjson
import structlog

from rankserve.server.engines.contract import Assignment, EndpointState
from rankserve.server.engines.openai.breaker import Breaker, Circuit
from rankserve.server.engines.openai.client import EndpointClient
from rankserve.server.engines.openai.counting import Piece, TokenCount
from rankserve.server.engines.openai.dialects import DIALECTS, OPENAI, Dialect, dialect_of
from rankserve.server.engines.openai.endpoint_settings import EndpointError, EndpointSettings
from rankserve.server.engines.openai.errors import Broken, Busy, EndpointTrouble, Unreachable
from rankserve.server.engines.openai.in_flight import InFlightLimit, Load
from rankserve.server.engines.openai.load import read_load
from rankserve.server.engines.openai.wire import body_of, path_of, read_chunk
from rankserve.server.scheduling.engine_priority import engine_priority
from rankserve.server.scheduling.request import Request

log = structlog.get_logger(__name__)

_PROBE_EVERY_S = 0.5
# For the end of a stream whose answer has ended.
_PATIENCE_S = 1.0
# With less of its KV cache free it is given nothing more.
_FULL_KV = 0.95
_MOST_RETRY_AFTER_S = 60.0


class Endpoint:
    """Call `learn` before anything else, and run `watch` from then on.

    Args:
        settings: where it is and how it is used.
        on_change: called when there may be room where there was none.
        timeout_s: silence after which an answer counts as lost.
        clock: seconds.

    Attributes:
        model: as it calls the one that it is asked for; empty until that is known.
        dialect: what kind of server it is.
        max_model_len: longest prompt plus answer; None if it does not say.
        in_flight: requests that it has, by id.
        load: what it last said of itself.
        leaving: whether it gets nothing more, and is forgotten when it has nothing left.
    """

    def __init__(
        self,
        settings: EndpointSettings,
        on_change: Callable[[], None],
        *,
        timeout_s: float,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.settings = settings
        self.model = settings.model
        self.dialect: Dialect = DIALECTS[settings.dialect] if settings.dialect else OPENAI
        self.max_model_len: int | None = None
        self.in_flight: dict[str, Request] = {}
        self.load: Load | None = None
        self.leaving = False
        self.breaker = Breaker(self._circuit_changed)
        self._limit = InFlightLimit(settings.max_sequences)
        self._on_change = on_change
        self._clock = clock
        self._paused_until_s = -math.inf
        self._learned = False
        # What it had when it was last taken for broken.
        self._doubtful: set[str] = set()
        self._client = EndpointClient(settings.api_key(), timeout_s)

    @property
    def url(self) -> str:
        return self.settings.url

    def change(self, settings: EndpointSettings, api_key: str) -> None:
        """Takes over what can change while requests are in flight: weight, limit, priority and key."""
        if settings.max_sequences != self.settings.max_sequences:
            self._limit = InFlightLimit(settings.max_sequences)
        self.settings = settings
        self._client.use_key(api_key)

    async def learn(self) -> None:
        """Asks what it is and which models it has.

        Raises:
            EndpointTrouble: it does not say.
            EndpointError: it does not have the model.
        """
        try:
            models = orjson.loads(await self._client.get(f"{self.url}/models"))["data"]
            described = {str(model["id"]): model for model in models}
        except (ValueError, KeyError, TypeError) as error:
            raise Broken(f"{self.url}/models: not of the OpenAI API ({type(error).__name__})") from None
        wanted = self.settings.model
        if not described or (wanted and wanted not in described):
            has = ", ".join(map(repr, list(described)[:10])) or "none"
            raise EndpointError(f"{self.url} has no model {wanted!r}; it has: {has}")
        self.model = wanted or next(iter(described))
        about = described[self.model]
        if self.settings.dialect is None:
            self.dialect = dialect_of(str(about.get("owned_by", "")))
        longest = about.get("max_model_len")
        self.max_model_len = longest if isinstance(longest, int) and longest > 0 else None
        self._learned = True

    async def watch(self) -> None:
        """Asks for its health and its load, until cancelled."""
        while True:
            await asyncio.sleep(_PROBE_EVERY_S)
            try:
                await self._probe()
            except (EndpointTrouble, EndpointError) as error:
                self.breaker.missed(for_sure=isinstance(error, Unreachable))
            except Exception:
                log.exception("endpoint_not_watched", url=self.url)
                self.breaker.missed()
            else:
                self.breaker.healthy()
            self._on_change()

    async def _probe(self) -> None:
        if not self._learned:
            await self.learn()
        root = self.url.removesuffix("/v1")
        await self._client.get(
            f"{root}{self.dialect.health}" if self.dialect.health else f"{self.url}/models"
        )
        if self.dialect.load is not None:
            try:
                text = (await self._client.get(f"{root}/metrics")).decode(errors="replace")
            except EndpointTrouble:
                # It may serve without them.
                self.load = None
            else:
                self.load = read_load(text, self.dialect.load)
            if self.load is not None:
                self._limit.loaded(self.load, len(self.in_flight))

    async def aclose(self) -> None:
        await self._client.aclose()

    @property
    def serves(self) -> bool:
        """Whether it may be given anything."""
        return (
            bool(self.model)
            and not self.leaving
            and self.breaker.state is not Circuit.OPEN
            and self._clock() >= self._paused_until_s
        )

    @property
    def limit(self) -> int:
        """The most requests that it is given at a time."""
        return 1 if self.breaker.state is Circuit.HALF_OPEN else self._limit.value

    @property
    def room(self) -> int:
        """How many more requests it can take now."""
        if not self.serves or (self.load is not None and self.load.kv_use >= _FULL_KV and self.in_flight):
            return 0
        half_open = self.breaker.state is Circuit.HALF_OPEN
        taken = self.in_flight.keys() - self._doubtful if half_open else self.in_flight
        return max(0, self.limit - len(taken))

    @property
    def fullness(self) -> float:
        """How much of it is taken by its requests, now and to come, for its weight: the least goes first."""
        tokens = sum(_tokens_to_hold(request) for request in self.in_flight.values())
        return tokens / self.settings.weight

    @property
    def state(self) -> EndpointState:
        """For those who look."""
        load = self.load
        return EndpointState(
            self.url,
            self.model,
            self.breaker.state.value,
            len(self.in_flight),
            self.limit,
            running=None if load is None else load.running,
            waiting=None if load is None else load.waiting,
            kv_usage=None if load is None else load.kv_use,
        )

    async def answer(self, assignment: Assignment) -> AsyncGenerator[Piece]:
        """The answer as it comes; the last piece says how it finished.

        Raises:
            EndpointTrouble: it ends otherwise.
        """
        request = assignment.request
        left = max(1, request.max_tokens - request.output_tokens)
        body = body_of(
            assignment, self.model, self.dialect, priority=self._priority(assignment), max_tokens=left
        )
        count = TokenCount(left)
        sent_s = self._clock()
        began = False
        ends_s: float | None = None
        try:
            async with aclosing(self._client.events(f"{self.url}/{path_of(assignment)}", body)) as events:
                while not count.overrun and (data := await _next(events, ends_s)) is not None:
                    if data == "[DONE]":
                        count.done()
                        break
                    piece = count.add(read_chunk(data))
                    if count.finished and ends_s is None:
                        ends_s = asyncio.get_running_loop().time() + _PATIENCE_S
                    if piece is None:
                        continue
                    self.breaker.lives()
                    if not began:
                        began = True
                        self._began(self._clock() - sent_s)
                    yield piece
        except Broken:
            # What comes after the end of an answer takes nothing from it.
            if not count.finished:
                raise
        if not count.finished:
            raise Broken(f"{self.url}: the stream ended within the answer")
        if not began:
            self._began(self._clock() - sent_s)
        yield count.end()

    def failed(self, trouble: EndpointTrouble) -> None:
        """An answer of it ended so."""
        if isinstance(trouble, Busy):
            self._limit.busy(len(self.in_flight))
            self._paused_until_s = self._clock() + min(max(trouble.retry_after_s, 0.1), _MOST_RETRY_AFTER_S)
        elif isinstance(trouble, Unreachable | Broken):
            self.breaker.failed(for_sure=isinstance(trouble, Unreachable))

    def _began(self, after_s: float) -> None:
        """The first token of an answer came."""
        self.breaker.began()
        if self.load is None:
            self._limit.first_token(after_s, len(self.in_flight))

    def _priority(self, assignment: Assignment) -> int | None:
        if self.settings.priority == "off":
            return None
        lower_first = self.settings.priority == "lower-first"
        return engine_priority(assignment.request.priority, assignment.key, lower_first=lower_first)

    def _circuit_changed(self, state: Circuit) -> None:
        log.warning("endpoint_circuit", url=self.url, state=state.value, in_flight=len(self.in_flight))
        if state is Circuit.OPEN:
            # It may come back as another.
            self._learned = False
            self._doubtful = set(self.in_flight)
        self._on_change()


def _tokens_to_hold(request: Request) -> float:
    """Tokens whose KV it will hold at its end, as far as that is known."""
    expected = request.expected_tokens if math.isfinite(request.expected_tokens) else request.max_tokens
    return request.prompt_tokens + max(float(request.output_tokens), min(expected, request.max_tokens))


async def _next(events: AsyncGenerator[str], until_s: float | None) -> str | None:
    """The next event's data; None at the end, or at that time of the event loop."""
    try:
        async with asyncio.timeout_at(until_s):
            return await anext(events)
    except (StopAsyncIteration, TimeoutError):
        return None
