"""Requests of the service: what was asked, what is known of each, and which are retained after their end."""

import asyncio
import math
from collections import OrderedDict
from dataclasses import dataclass, field, replace

from rankserve.server.engines.contract import Sampling
from rankserve.server.errors import RequestIdInUse, RequestNotFound
from rankserve.server.events import EventStream, Failed, Finished
from rankserve.server.scheduling.request import Request


@dataclass(slots=True, frozen=True)
class RequestSpec:
    """A validated request as a client sent it.

    Attributes:
        id: chosen by the client.
        fingerprint: hash of the whole body; tells a retry from another request with the same id.
        size_bytes: of the text it holds, in UTF-8.
        prompt: what the engine is to answer.
        model: target model; empty for whatever the server drives.
        ranking_text: what the ranker reads.
        max_tokens: longest answer, or None for the server's default.
        sampling: passed on to the engine.
        replay_input_tokens: recorded prompt length, or None to count it.
        replay_output_tokens: recorded answer length, or None to let the LLM decide.
    """

    id: str
    fingerprint: bytes
    size_bytes: int
    prompt: str
    ranking_text: str
    model: str = ""
    max_tokens: int | None = None
    sampling: Sampling = field(default_factory=Sampling)
    priority: int = 0
    tenant: str = ""
    deadline_ms: int = 0
    detached: bool = False
    result_only: bool = False
    metadata: dict[str, str] = field(default_factory=dict)
    replay_input_tokens: int | None = None
    replay_output_tokens: int | None = None


@dataclass(slots=True, eq=False)
class LiveRequest:
    """A request from acceptance to the end of its retention. Times are seconds on the server's clock.

    Attributes:
        spec: what was asked.
        request: the scheduler's view of it.
        accept_time: Unix time of acceptance.
        streams: who is told what happens to it.
        scoring: the task that scores it, while that lasts.
        queued_s: when its client was told its score, or that it started without one.
        outcome: its terminal event, once it has ended.
    """

    spec: RequestSpec
    request: Request
    accept_time: float
    streams: list[EventStream]
    scoring: asyncio.Task[None] | None = None
    ranker_version: str = ""
    queued_s: float | None = None
    scheduled_s: float | None = None
    first_token_s: float | None = None
    last_token_s: float | None = None
    max_token_gap_s: float = 0.0
    text: list[str] = field(default_factory=list)
    outcome: Finished | Failed | None = None
    ended_s: float = 0.0

    @property
    def score(self) -> float:
        """Its score as clients see it; 0 while it has none, with an empty `ranker_version`."""
        return self.request.score if math.isfinite(self.request.score) else 0.0


class RequestRegistry:
    """All live requests and, for a while, those that ended."""

    def __init__(self, retain_count: int, retain_s: float) -> None:
        self.live: dict[str, LiveRequest] = {}
        self._ended: OrderedDict[str, LiveRequest] = OrderedDict()
        self._retain_count = retain_count
        self._retain_s = retain_s

    def add(self, live: LiveRequest) -> None:
        self.live[live.spec.id] = live

    def end(self, live: LiveRequest, now_s: float) -> None:
        """Moves a request to the ended ones; forgets those retained for long enough."""
        del self.live[live.spec.id]
        live.ended_s = now_s
        live.streams.clear()
        live.text = ["".join(live.text)]
        live.spec = replace(live.spec, prompt="", ranking_text="", sampling=Sampling())
        self._ended[live.spec.id] = live
        while self._ended:
            oldest = next(iter(self._ended.values()))
            if len(self._ended) <= self._retain_count and oldest.ended_s + self._retain_s > now_s:
                break
            del self._ended[oldest.spec.id]

    def find(self, request_id: str) -> LiveRequest:
        """Raises RequestNotFound."""
        live = self.live.get(request_id) or self._ended.get(request_id)
        if live is None:
            raise RequestNotFound(request_id)
        return live

    def find_same(self, spec: RequestSpec) -> LiveRequest | None:
        """The request this one repeats, if any. Raises RequestIdInUse if only the id is the same."""
        live = self.live.get(spec.id) or self._ended.get(spec.id)
        if live is not None and live.spec.fingerprint != spec.fingerprint:
            raise RequestIdInUse(spec.id)
        return live
