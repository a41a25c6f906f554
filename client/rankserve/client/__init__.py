"""The RankServe client: typed, async and sync, with the dependencies of a caller and no more.

``rankserve.client.load`` generates load and ``rankserve.client.evaluation`` measures it; both need the extra
``load``. ``rankserve.client.testing`` holds a fake server for the tests of code that uses this client.
"""

from rankserve.client._client import AsyncSchedulerClient
from rankserve.client._config import Limits, Timeout, TlsConfig
from rankserve.client._exceptions import (
    AlreadyExists,
    Cancelled,
    ConnectionFailed,
    DeadlineExceeded,
    Draining,
    FailedPrecondition,
    FieldViolation,
    InternalError,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    RankServeError,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from rankserve.client._options import RequestOptions
from rankserve.client._stream import AsyncSubmitStream
from rankserve.client._sync import SchedulerClient
from rankserve.client._sync_stream import SubmitStream
from rankserve.client._types import (
    Accepted,
    Activation,
    ChatMessage,
    Completion,
    Event,
    Failed,
    Finished,
    FinishReason,
    PromptScore,
    Queued,
    RankerVersionInfo,
    Request,
    RequestState,
    RequestStatus,
    Scores,
    Stats,
    Timing,
    Tokens,
)

__all__ = [
    "Accepted",
    "Activation",
    "AlreadyExists",
    "AsyncSchedulerClient",
    "AsyncSubmitStream",
    "Cancelled",
    "ChatMessage",
    "Completion",
    "ConnectionFailed",
    "DeadlineExceeded",
    "Draining",
    "Event",
    "Failed",
    "FailedPrecondition",
    "FieldViolation",
    "FinishReason",
    "Finished",
    "InternalError",
    "InvalidRequest",
    "Limits",
    "NotFound",
    "PermissionDenied",
    "PromptScore",
    "Queued",
    "RankServeError",
    "RankerVersionInfo",
    "Request",
    "RequestOptions",
    "RequestState",
    "RequestStatus",
    "ResourceExhausted",
    "SchedulerClient",
    "Scores",
    "Stats",
    "SubmitStream",
    "Timeout",
    "Timing",
    "TlsConfig",
    "Tokens",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
]
