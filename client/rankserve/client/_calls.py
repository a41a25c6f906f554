"""The short calls of all services: what each sends, to whom, and what its answer means."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

from rankserve.client import _convert, _convert_server
from rankserve.client._config import Timeout
from rankserve.client._exceptions import Draining, InvalidRequest, NotFound, RankServeError
from rankserve.client._server_types import (
    Activation,
    PolicyChange,
    RankerVersionInfo,
    RequestSummary,
    Scores,
    Stats,
)
from rankserve.client._types import RequestState, RequestStatus
from rankserve.v1 import admin_pb2, ranker_pb2, scheduler_pb2

T = TypeVar("T")

Page = tuple[tuple[RequestSummary, ...], str]
STATES = {state: number for number, state in _convert.REQUEST_STATES.items()}


class Reach(Enum):
    """Which replicas a call goes to, where there are several."""

    ANY = auto()
    HOLDER = auto()  # the one that has the request
    ONE = auto()  # it changes one server, so there must be only one


def _call_s(timeout: Timeout) -> float | None:
    return timeout.call_s


def _activate_s(timeout: Timeout) -> float | None:
    return timeout.activate_s


@dataclass(slots=True, frozen=True)
class UnaryCall(Generic[T]):
    """A call of one message for one message. ``method`` is a name on the stub of its service.

    Where several replicas are asked, an answer that is not ``final`` counts only if there is no other.
    """

    method: str
    message: Message
    convert: Callable[[Any], T]
    timeout_s: Callable[[Timeout], float | None] = _call_s
    reach: Reach = Reach.ANY
    final: Callable[[T], bool] = bool


def choose(answers: Sequence[T | RankServeError], final: Callable[[T], bool]) -> T:
    """The answer of the replica that knows most. Raises the error that says most if none answered."""
    results = [answer for answer in answers if not isinstance(answer, RankServeError)]
    if results:
        return next(filter(final, results), results[0])
    errors = [answer for answer in answers if isinstance(answer, RankServeError)]
    raise next((error for error in errors if not isinstance(error, NotFound)), errors[0])


def cancel(request_id: str) -> UnaryCall[bool]:
    message = _build(scheduler_pb2.CancelRequestRequest, request_id=request_id)
    return UnaryCall("CancelRequest", message, lambda response: bool(response.cancelled), reach=Reach.HOLDER)


def get_request(request_id: str) -> UnaryCall[RequestStatus]:
    message = _build(scheduler_pb2.GetRequestRequest, request_id=request_id)
    return UnaryCall(
        "GetRequest",
        message,
        _convert.request_status_from_proto,
        reach=Reach.HOLDER,
        final=lambda status: not isinstance(status.error, Draining),
    )


def list_requests(
    states: Iterable[RequestState], tenant: str | None, page_size: int, page_token: str
) -> UnaryCall[Page]:
    message = _build(
        scheduler_pb2.ListRequestsRequest,
        page_size=page_size,
        page_token=page_token,
        states=[STATES[state] for state in states],
        tenant=tenant,
    )
    return UnaryCall(
        "ListRequests",
        message,
        lambda response: (_convert_server.summaries_from_proto(response), str(response.next_page_token)),
    )


def stats() -> UnaryCall[Stats]:
    return UnaryCall("GetStats", scheduler_pb2.GetStatsRequest(), _convert_server.stats_from_proto)


def watch_stats(interval_ms: int) -> scheduler_pb2.WatchStatsRequest:
    message = _build(scheduler_pb2.WatchStatsRequest, interval_ms=interval_ms)
    assert isinstance(message, scheduler_pb2.WatchStatsRequest)
    return message


def score(prompts: Sequence[str]) -> UnaryCall[Scores]:
    if isinstance(prompts, str):
        raise InvalidRequest("score() takes a sequence of prompts, not one string")
    message = _build(ranker_pb2.ScoreRequest, prompts=prompts)
    return UnaryCall("Score", message, _convert_server.scores_from_proto)


def list_ranker_versions() -> UnaryCall[tuple[RankerVersionInfo, ...]]:
    return UnaryCall(
        "ListRankerVersions",
        ranker_pb2.ListRankerVersionsRequest(),
        _convert_server.ranker_versions_from_proto,
    )


def load_ranker_version(name: str, version: int) -> UnaryCall[RankerVersionInfo]:
    message = _build(ranker_pb2.LoadRankerVersionRequest, name=name, version=version)
    return UnaryCall(
        "LoadRankerVersion",
        message,
        lambda response: _convert_server.ranker_version_from_proto(response.loaded),
        timeout_s=_activate_s,
        reach=Reach.ONE,
    )


def activate_ranker_version(name: str, version: int) -> UnaryCall[Activation]:
    message = _build(ranker_pb2.ActivateRankerVersionRequest, name=name, version=version)
    return UnaryCall(
        "ActivateRankerVersion",
        message,
        _convert_server.activation_from_proto,
        timeout_s=_activate_s,
        reach=Reach.ONE,
    )


def drain() -> UnaryCall[int]:
    return UnaryCall("Drain", admin_pb2.DrainRequest(), lambda response: int(response.live), reach=Reach.ONE)


def pause() -> UnaryCall[int]:
    return UnaryCall(
        "Pause", admin_pb2.PauseRequest(), lambda response: int(response.waiting), reach=Reach.ONE
    )


def resume() -> UnaryCall[None]:
    return UnaryCall("Resume", admin_pb2.ResumeRequest(), lambda _: None, reach=Reach.ONE)


def set_policy(policy: str) -> UnaryCall[PolicyChange]:
    message = _build(admin_pb2.SetPolicyRequest, policy=policy)
    return UnaryCall("SetPolicy", message, _convert_server.policy_change_from_proto, reach=Reach.ONE)


def _build(kind: type[Message], **values: object) -> Message:
    try:
        return kind(**values)
    except (ValueError, TypeError) as error:
        raise InvalidRequest(f"{kind.__name__} cannot hold these values: {error}") from None
