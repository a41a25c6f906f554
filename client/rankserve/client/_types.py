"""What goes to the server and what comes back, as Python values."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from rankserve.client._exceptions import InvalidRequest, RankServeError


@dataclass(slots=True, frozen=True)
class ChatMessage:
    """One turn of a chat. ``role`` is "system", "user", "assistant" or "tool"."""

    role: str
    content: str


@dataclass(slots=True, frozen=True, kw_only=True)
class Request:
    """One LLM request: a prompt or the messages of a chat.

    Attributes:
        prompt: plain text to complete.
        messages: a chat, instead of a prompt.
        id: 1 to 128 characters of [A-Za-z0-9._:-]. Sending the same id and body again is the same request;
            another body raises AlreadyExists.
        model: target model; empty for the only one the server drives.
        max_tokens: longest answer in tokens; None for the server's default.
        temperature, top_p, stop, seed: sampling; None for the server's default.
        priority: band; lower is served first, -1000 to 1000.
        tenant: whom the request is served for.
        deadline_ms: fail the request when it has not finished this long after acceptance; 0 for never.
        detached: keep serving it when its stream is lost.
        result_only: no token events; the text comes whole in the result.
        metadata: returned in the result, never interpreted.
        replay_output_tokens: length of the recorded answer to replay, where the server allows it.
        replay_input_tokens: length of the recorded prompt, likewise.
    """

    prompt: str | None = None
    messages: tuple[ChatMessage, ...] = ()
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    model: str = ""
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    priority: int = 0
    tenant: str = ""
    deadline_ms: int = 0
    detached: bool = False
    result_only: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)
    replay_output_tokens: int | None = None
    replay_input_tokens: int | None = None

    def __post_init__(self) -> None:
        if (self.prompt is None) == (not self.messages):
            raise InvalidRequest("a request needs either a prompt or messages, and not both")


class FinishReason(StrEnum):
    """Why an answer ended."""

    UNSPECIFIED = "unspecified"
    STOP = "stop"
    LENGTH = "length"


class RequestState(StrEnum):
    """Where a request is."""

    UNSPECIFIED = "unspecified"
    ACCEPTED = "accepted"
    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"


@dataclass(slots=True, frozen=True)
class Timing:
    """When things happened, in wall-clock seconds after acceptance, on the server's clock.

    Attributes:
        accept_time: when it was accepted, UTC.
        queued_s: scored and queued.
        scheduled_s: first scheduled.
        first_token_s: first token.
        last_token_s: last token.
        max_token_gap_s: largest gap between two consecutive tokens.
        time_scale: simulated seconds per wall-clock second; 1 for real engines.
    """

    accept_time: datetime
    queued_s: float
    scheduled_s: float
    first_token_s: float
    last_token_s: float
    max_token_gap_s: float
    time_scale: float


@dataclass(slots=True, frozen=True)
class Completion:
    """A finished request.

    Attributes:
        request_id: its id.
        text: the whole answer.
        finish_reason: why the answer ended.
        input_tokens: prompt length as the engine counts it.
        output_tokens: answer length.
        score: the ranker's score, higher = served sooner; comparable within one ``ranker_version`` only.
        ranker_version: "name/number"; empty if no ranker scored it.
        policy: the policy that ordered it.
        preemptions: times it was evicted and later resumed.
        promoted: whether starvation prevention moved it to the front.
        timing: when things happened.
        metadata: as it was sent.
    """

    request_id: str
    text: str
    finish_reason: FinishReason
    input_tokens: int
    output_tokens: int
    score: float
    ranker_version: str
    policy: str
    preemptions: int
    promoted: bool
    timing: Timing
    metadata: Mapping[str, str]


@dataclass(slots=True, frozen=True)
class Accepted:
    """The server took the request. ``accept_time`` is UTC, on the server's clock."""

    request_id: str
    accept_time: datetime


@dataclass(slots=True, frozen=True)
class Queued:
    """The request was scored and waits.

    Attributes:
        request_id: its id.
        score: higher = served sooner.
        ranker_version: "name/number"; empty if no ranker scored it and the score is neutral.
        place: how many waiting requests were ahead, approximately.
        estimated_wait_ms: until it is first scheduled; None when there is nothing to estimate from.
    """

    request_id: str
    score: float
    ranker_version: str
    place: int
    estimated_wait_ms: int | None


@dataclass(slots=True, frozen=True)
class Tokens:
    """A piece of the answer: ``count`` tokens, the first of them at index ``offset`` of the answer."""

    request_id: str
    offset: int
    count: int
    text: str


@dataclass(slots=True, frozen=True)
class Finished:
    """The last event of a request that finished.

    ``completion.text`` is the whole answer of a ``result_only`` request, else empty: the text went by in
    ``Tokens`` events.
    """

    request_id: str
    completion: Completion


@dataclass(slots=True, frozen=True)
class Failed:
    """The last event of a request that did not finish, after ``output_tokens`` tokens."""

    request_id: str
    error: RankServeError
    output_tokens: int


Event = Accepted | Queued | Tokens | Finished | Failed


@dataclass(slots=True, frozen=True)
class RequestStatus:
    """A request as the server knows it: ``completion`` once finished, ``error`` once failed."""

    request_id: str
    state: RequestState
    output_tokens: int
    score: float
    ranker_version: str
    completion: Completion | None
    error: RankServeError | None
