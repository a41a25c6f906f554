"""Requests of the service: what was asked, what is known of each, and which are retained after their end."""

import asyncio
import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from rankserve.server.answer import AnswerText
from rankserve.server.engines.contract import Prompt, Sampling
from rankserve.server.errors import (
    RequestIdInUse,
    RequestNotFound,
    RequestShed,
    ServerDraining,
    StreamLost,
)
from rankserve.server.events import EventStream, Failed, Finished
from rankserve.server.ranking.worker import Outcome
from rankserve.server.scheduling.request import Request

_NO_SAMPLING = Sampling()


@dataclass(slots=True)
class RequestSpec:
    """A validated request as a client sent it. Its text is dropped when nobody needs it any more.

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
        body: the whole request as bytes, for the journal; empty where there is none.
    """

    id: str
    fingerprint: bytes
    size_bytes: int
    prompt: Prompt
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
    body: bytes = field(default=b"", repr=False)

    def drop_text(self) -> None:
        """The request has ended, and is retained for its result."""
        self.prompt = self.ranking_text = ""
        self.sampling = _NO_SAMPLING


@dataclass(slots=True, eq=False)
class LiveRequest:
    """A request from acceptance to the end of its retention. Times are seconds on the server's clock.

    What clients are told of it lags behind what is known of it while the journal writes: the `told`
    attributes say how far they are.

    Attributes:
        spec: what was asked.
        request: the scheduler's view of it.
        accept_time: Unix time of acceptance.
        streams: who is told what happens to it.
        number: its place in the order of acceptance.
        scoring: gets its score, while that lasts.
        queued_s: when it was scored, or started without a score.
        answer: its tokens.
        outcome: its terminal event, once it has ended.
        ended_s, end_time: when that was, on the server's clock and as Unix time.
        outlives_streams: whether it goes on when its last stream is lost.
        told_accepted, told_queued, told_tokens, told_outcome: what its streams have been told.
    """

    spec: RequestSpec
    request: Request
    accept_time: float
    streams: list[EventStream]
    number: int = 0
    scoring: asyncio.Future[Outcome] | None = None
    ranker_version: str = ""
    queued_s: float | None = None
    scheduled_s: float | None = None
    first_token_s: float | None = None
    last_token_s: float | None = None
    max_token_gap_s: float = 0.0
    answer: AnswerText = field(default_factory=AnswerText)
    outcome: Finished | Failed | None = None
    ended_s: float = 0.0
    end_time: float = 0.0
    outlives_streams: bool = False
    told_accepted: bool = False
    told_queued: bool = False
    told_tokens: int = 0
    told_outcome: bool = False

    @property
    def unserved(self) -> bool:
        """Whether it ended, and that was told, before it had a token, and for no fault of its own.

        Who sends it again wants it served, so its id is free.
        """
        return (
            self.told_outcome
            and isinstance(self.outcome, Failed)
            and isinstance(self.outcome.error, ServerDraining | RequestShed | StreamLost)
            and not self.outcome.output_tokens
        )

    @property
    def score(self) -> float:
        """Its score as clients see it; 0 while it has none, with an empty `ranker_version`."""
        return self.request.score if math.isfinite(self.request.score) else 0.0


class RequestRegistry:
    """All live requests and, for a while, those that ended."""

    def __init__(self, retain_count: int, retain_s: float) -> None:
        self.live: dict[str, LiveRequest] = {}
        self.ended: OrderedDict[str, LiveRequest] = OrderedDict()
        self._by_number: dict[int, LiveRequest] = {}
        self._last_number = 0
        self._retain_count = retain_count
        self._retain_s = retain_s

    def __len__(self) -> int:
        return len(self.live) + len(self.ended)

    def add(self, live: LiveRequest) -> None:
        """Takes in a live request and, unless it was taken over from a journal, numbers it."""
        if not live.number:
            live.number = self._last_number + 1
        self._last_number = max(self._last_number, live.number)
        self.live[live.spec.id] = live
        self._by_number[live.number] = live

    def end(self, live: LiveRequest) -> None:
        """Moves a request to the ended ones."""
        self.live.pop(live.spec.id, None)
        live.answer.close()
        live.spec.drop_text()
        self.ended[live.spec.id] = live

    def drop(self, live: LiveRequest) -> None:
        """Forgets one that ended."""
        del self.ended[live.spec.id]
        del self._by_number[live.number]

    def forget(self, now_s: float, most: int) -> list[LiveRequest]:
        """Forgets so many of those that were retained for long enough, or are too many; returns them."""
        forgotten: list[LiveRequest] = []
        while self.ended and len(forgotten) < most:
            oldest = next(iter(self.ended.values()))
            kept = len(self.ended) <= self._retain_count and oldest.ended_s + self._retain_s > now_s
            if kept or not oldest.told_outcome:
                break
            self.drop(oldest)
            forgotten.append(oldest)
        return forgotten

    def find(self, request_id: str) -> LiveRequest:
        """Raises RequestNotFound."""
        live = self.live.get(request_id) or self.ended.get(request_id)
        if live is None:
            raise RequestNotFound(request_id)
        return live

    def find_same(self, spec: RequestSpec) -> LiveRequest | None:
        """The request this one repeats, if any. Raises RequestIdInUse if only the id is the same."""
        live = self.live.get(spec.id) or self.ended.get(spec.id)
        if live is not None and live.spec.fingerprint != spec.fingerprint:
            raise RequestIdInUse(spec.id)
        return live

    def after(self, number: int, most: int) -> Iterator[tuple[int, LiveRequest | None]]:
        """Numbers after this one in order, each with its request unless forgotten; so many at most."""
        for following in range(number + 1, min(number + most, self._last_number) + 1):
            yield following, self._by_number.get(following)

    @property
    def last_number(self) -> int:
        """Of the request accepted last."""
        return self._last_number
