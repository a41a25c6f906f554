"""LLMs behind the OpenAI API as one engine: whoever has room gets the next request of the one queue."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import structlog

from rankserve.server.engines.contract import (
    Assignment,
    EndpointState,
    EngineCapacity,
    EngineHost,
    EngineSettings,
    TokensProduced,
)
from rankserve.server.engines.openai.counting import Piece
from rankserve.server.engines.openai.endpoint import Endpoint
from rankserve.server.engines.openai.endpoint_settings import (
    EndpointError,
    EndpointSettings,
    endpoints_of,
    read_endpoints,
)
from rankserve.server.engines.openai.errors import Broken, EndpointTrouble, Refused
from rankserve.server.engines.openai.pool import EndpointPool
from rankserve.server.engines.openai.wire import can_continue
from rankserve.server.errors import AnswerLost, EngineLost, EngineRefused, InternalFailure, RequestError
from rankserve.server.scheduling.budget import EngineRoom
from rankserve.server.scheduling.request import Request
from rankserve.server.watched_files import WatchedFiles

log = structlog.get_logger(__name__)

# Characters per token of English text in current LLM tokenizers.
_CHARACTERS_PER_TOKEN = 4
# Longer than any context; endpoints refuse what is too long by themselves.
_UNBOUNDED = 1 << 31
# Times that a request may be lost without getting any further, before it is taken for the cause.
_MOST_LOST = 5
# The KV of a prefix that the engine still caches comes back this fast, in decode steps for a token.
_RESTART_STEPS_PER_TOKEN = 0.02


@dataclass(slots=True)
class _History:
    """What happened to a request since it got any further.

    Attributes:
        lost: times that an endpoint took and lost it.
        at: URLs of all endpoints that ever did.
        too_long_for: the longest context of those that it was too long for, in tokens.
    """

    lost: int = 0
    at: set[str] = field(default_factory=set)
    too_long_for: int = 0


@dataclass(slots=True)
class _Call:
    endpoint: Endpoint
    assignment: Assignment
    had_tokens: int
    task: asyncio.Task[None] | None = None


class OpenAIEngine:
    """Drives a pool of endpoints. Global order is kept: nobody starts before a request whose turn it is.

    A request that an endpoint loses before its first token goes back to its place in the queue; after it,
    too, with the tokens it has as part of its prompt, if the endpoints can go on with an answer.

    Raises:
        ValueError: settings that cannot be, or files that cannot be read.
    """

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._file = settings.endpoint_file
        self._first = self._read()
        self._pool = EndpointPool(self._make)
        self._calls: dict[str, _Call] = {}
        self._histories: dict[str, _History] = {}
        self._wake = asyncio.Event()

    @property
    def name(self) -> str:
        return f"openai/{(self.models or ('?',))[0]}"

    @property
    def models(self) -> Sequence[str]:
        return self._pool.models

    @property
    def capacity(self) -> EngineCapacity:
        endpoints = [endpoint for endpoint in self._pool.endpoints if endpoint.serves]
        known = [endpoint.max_model_len for endpoint in endpoints if endpoint.max_model_len is not None]
        return EngineCapacity(
            max_sequences=sum(endpoint.limit for endpoint in endpoints),
            max_batched_tokens=_UNBOUNDED,
            max_model_len=max(known, default=_UNBOUNDED),
            kv_blocks=0,
            steps=False,
            preempts=all(endpoint.dialect.continues_chats for endpoint in self._pool.endpoints),
            resumes=True,
            counts_tokens=False,
            restart_steps_per_token=_RESTART_STEPS_PER_TOKEN,
        )

    @property
    def time_scale(self) -> float:
        return 1.0

    @property
    def kv_blocks_used(self) -> int:
        return 0

    @property
    def lag(self) -> float:
        return 0.0

    @property
    def endpoints(self) -> Sequence[Endpoint]:
        return self._pool.endpoints

    def endpoint_states(self) -> list[EndpointState]:
        return [endpoint.state for endpoint in self._pool.endpoints]

    def count_tokens(self, prompt: str) -> int:
        english = len(prompt.encode("ascii", "ignore"))
        return max(1, english // _CHARACTERS_PER_TOKEN + len(prompt) - english)

    async def prepare(self) -> None:
        await self._pool.set(self._first)
        if not self._pool.models:
            urls = ", ".join(endpoint.url for endpoint in self._pool.endpoints)
            usual = all(endpoint.url.endswith("/v1") for endpoint in self._pool.endpoints)
            raise EndpointError(
                f"nobody answers at {urls}: start the LLM first, or name its model (--engine-model)"
                f" to begin without it{'' if usual else '; base URLs of the OpenAI API usually end in /v1'}"
            )

    async def run(self, host: EngineHost) -> None:
        watch = None if self._file is None else asyncio.create_task(self._watch_file(self._file))
        try:
            while True:
                self._wake.clear()
                self._pool.settle()
                for number, model in enumerate(self._pool.models):
                    if number == 0:
                        self._start_all(host, model, "")
                    # The first as well: it may not always have been the first.
                    self._start_all(host, model, model)
                for model in self._pool.gone:
                    self._fail_all(host, model)
                await self._wake.wait()
        finally:
            if watch is not None:
                watch.cancel()
            for call in list(self._calls.values()):
                self.evict(call.assignment.request)
            await self._pool.aclose()

    def wake(self) -> None:
        self._wake.set()

    def evict(self, request: Request) -> None:
        call = self._release(request)
        self._histories.pop(request.id, None)
        if call is not None and call.task is not None:
            # Closing the connection makes the engine abort the request.
            call.task.cancel()

    def _start_all(self, host: EngineHost, model: str, queue: str) -> None:
        """Starts what waits in a queue and this model has room for."""
        if not self._pool.serves(model):
            return
        plan = host.plan(EngineRoom(self._pool.room(model), _UNBOUNDED, _UNBOUNDED, model=queue))
        for request in plan.evicted:
            self.evict(request)
        for assignment in plan.starting:
            request = assignment.request
            history = self._histories.get(request.id)
            able = partial(_is_able, assignment, history)
            endpoint = self._pool.place(model, able, () if history is None else history.at)
            if endpoint is not None:
                endpoint.in_flight[request.id] = request
                call = self._calls[request.id] = _Call(endpoint, assignment, request.output_tokens)
                call.task = asyncio.create_task(self._serve(host, call))
            elif not self._pool.serves(model):
                # It was the last that served, and left just now.
                host.returned(request)
            else:
                self._histories.pop(request.id, None)
                host.failed(request, EngineLost() if history else AnswerLost())

    def _fail_all(self, host: EngineHost, model: str) -> None:
        """Ends what waits for a model that no endpoint has any more."""
        plan = host.plan(EngineRoom(_UNBOUNDED, _UNBOUNDED, _UNBOUNDED, model=model))
        for assignment in plan.starting:
            self._histories.pop(assignment.request.id, None)
            host.failed(assignment.request, EngineLost())

    async def _serve(self, host: EngineHost, call: _Call) -> None:
        request = call.assignment.request
        try:
            async with aclosing(call.endpoint.answer(call.assignment)) as pieces:
                async for piece in pieces:
                    if self._is_current(call):
                        self._produced(host, call, piece)
        except EndpointTrouble as trouble:
            if self._is_current(call):
                call.endpoint.failed(trouble)
                self._release(request)
                self._after(trouble, call, host)
        except Exception:
            log.exception("answer_failed", request_id=request.id)
            if self._is_current(call):
                self._release(request)
                host.failed(request, InternalFailure())
        self.wake()

    def _is_current(self, call: _Call) -> bool:
        """False once the request has been evicted, though it may have been started again."""
        return self._calls.get(call.assignment.request.id) is call

    def _produced(self, host: EngineHost, call: _Call, piece: Piece) -> None:
        request = call.assignment.request
        request.output_tokens += piece.count
        if piece.finished:
            self._release(request)
            self._histories.pop(request.id, None)
        # What there was of the answer counted as part of the prompt.
        input_tokens = 0 if call.assignment.answer else piece.input_tokens
        host.produced([TokensProduced(request, piece.count, piece.text, piece.finished, input_tokens)])

    def _after(self, trouble: EndpointTrouble, call: _Call, host: EngineHost) -> None:
        """What becomes of a request whose endpoint is in trouble."""
        request = call.assignment.request
        log.warning(
            "endpoint_trouble",
            kind=type(trouble).__name__,
            reason=str(trouble) if not isinstance(trouble, Refused) else "refused",
            request_id=request.id,
            output_tokens=request.output_tokens,
        )
        history = self._histories.setdefault(request.id, _History())
        if request.output_tokens > call.had_tokens:
            history.lost = 0
        if isinstance(trouble, Refused):
            history.too_long_for = max(history.too_long_for, call.endpoint.max_model_len or _UNBOUNDED)
            error: RequestError = EngineRefused(str(trouble))
        else:
            error = EngineLost()
            if isinstance(trouble, Broken):
                history.lost += 1
                history.at.add(call.endpoint.url)
        if request.output_tokens >= request.max_tokens:
            # Nothing was lost but the end.
            self._histories.pop(request.id)
            host.produced([TokensProduced(request, 0, "", "length")])
        elif history.lost < _MOST_LOST and self._pool.any_able(
            call.endpoint.model, partial(_is_able, call.assignment, history)
        ):
            host.returned(request)
        else:
            self._histories.pop(request.id)
            host.failed(request, error)

    def _release(self, request: Request) -> _Call | None:
        """Its slot is free."""
        call = self._calls.pop(request.id, None)
        if call is not None:
            call.endpoint.in_flight.pop(request.id, None)
            self._pool.released(call.endpoint)
        return call

    def _make(self, settings: EndpointSettings) -> Endpoint:
        return Endpoint(settings, self.wake, timeout_s=self._settings.endpoint_timeout_s)

    def _read(self) -> tuple[EndpointSettings, ...]:
        settings = self._settings
        if self._file is not None:
            if settings.endpoint_urls:
                raise EndpointError("give either --engine-url or --engine-file, not both")
            return read_endpoints(self._file)
        found = endpoints_of(
            settings.endpoint_urls,
            model=settings.model,
            max_sequences=settings.max_sequences,
            dialect=settings.dialect or None,
            priority=settings.engine_priority,
            api_key_file=settings.api_key_file,
        )
        if not found:
            raise EndpointError(
                "engine openai needs --engine-url, like http://127.0.0.1:8000/v1, or --engine-file"
            )
        return found

    async def _watch_file(self, path: Path) -> None:
        watched = WatchedFiles(path)
        while True:
            await watched.next_change()
            try:
                await self._pool.set(await asyncio.to_thread(read_endpoints, path))
            except EndpointError as error:
                log.error("endpoint_file_not_read", reason=str(error), kept=len(self._pool.endpoints))
            except Exception:
                log.exception("endpoint_file_not_read", kept=len(self._pool.endpoints))
            self.wake()


def _is_able(assignment: Assignment, history: _History | None, endpoint: Endpoint) -> bool:
    """Whether an endpoint can answer this, as far as that is known."""
    request = assignment.request
    if request.output_tokens and not can_continue(assignment, endpoint.dialect):
        return False
    longest = endpoint.max_model_len or _UNBOUNDED
    return history is None or longest > history.too_long_for
