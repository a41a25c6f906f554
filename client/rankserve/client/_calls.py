"""The short calls of both services: what each sends, how long it may take, and what its answer means."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

from rankserve.client import _convert
from rankserve.client._config import Timeout
from rankserve.client._exceptions import InvalidRequest
from rankserve.client._types import Activation, RankerVersionInfo, RequestStatus, Scores, Stats
from rankserve.v1 import ranker_pb2, scheduler_pb2

T = TypeVar("T")


def _call_s(timeout: Timeout) -> float | None:
    return timeout.call_s


@dataclass(slots=True, frozen=True)
class UnaryCall(Generic[T]):
    """A call of one message for one message. ``method`` is a name on the stub of its service."""

    method: str
    message: Message
    convert: Callable[[Any], T]
    timeout_s: Callable[[Timeout], float | None] = _call_s


def cancel(request_id: str) -> UnaryCall[bool]:
    message = _build(scheduler_pb2.CancelRequestRequest, request_id=request_id)
    return UnaryCall("CancelRequest", message, lambda response: bool(response.cancelled))


def get_request(request_id: str) -> UnaryCall[RequestStatus]:
    message = _build(scheduler_pb2.GetRequestRequest, request_id=request_id)
    return UnaryCall("GetRequest", message, _convert.request_status_from_proto)


def stats() -> UnaryCall[Stats]:
    return UnaryCall("GetStats", scheduler_pb2.GetStatsRequest(), _convert.stats_from_proto)


def score(prompts: Sequence[str]) -> UnaryCall[Scores]:
    if isinstance(prompts, str):
        raise InvalidRequest("score() takes a sequence of prompts, not one string")
    message = _build(ranker_pb2.ScoreRequest, prompts=prompts)
    return UnaryCall("Score", message, _convert.scores_from_proto)


def list_ranker_versions() -> UnaryCall[tuple[RankerVersionInfo, ...]]:
    return UnaryCall(
        "ListRankerVersions", ranker_pb2.ListRankerVersionsRequest(), _convert.ranker_versions_from_proto
    )


def activate_ranker_version(name: str, version: int) -> UnaryCall[Activation]:
    message = _build(ranker_pb2.ActivateRankerVersionRequest, name=name, version=version)
    return UnaryCall(
        "ActivateRankerVersion",
        message,
        _convert.activation_from_proto,
        timeout_s=lambda timeout: timeout.activate_s,
    )


def _build(kind: type[Message], **values: object) -> Message:
    try:
        return kind(**values)
    except (ValueError, TypeError) as error:
        raise InvalidRequest(f"{kind.__name__} cannot hold these values: {error}") from None
