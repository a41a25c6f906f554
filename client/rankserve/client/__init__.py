"""The RankServe client: typed, async and sync, with the dependencies of a caller and no more.

``rankserve.client.load`` generates load and ``rankserve.client.evaluation`` measures it; both need the extra
``load``. ``rankserve.client.testing`` holds a fake server for the tests of code that uses this client.
"""

from rankserve.client._client import AsyncSchedulerClient
from rankserve.client._config import Limits, Retry, Timeout, TlsConfig
from rankserve.client._exceptions import (
    Aborted,
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
    QuotaViolation,
    RankServeError,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from rankserve.client._options import RequestOptions
from rankserve.client._resilient import AsyncResilientSubmitStream
from rankserve.client._server_types import (
    Activation,
    EndpointStats,
    PolicyChange,
    PromptScore,
    RankerAccuracy,
    RankerVersionInfo,
    RequestSummary,
    Scores,
    ServerState,
    Stats,
)
from rankserve.client._stream import AsyncSubmitStream
from rankserve.client._sync import SchedulerClient
from rankserve.client._sync_resilient import ResilientSubmitStream
from rankserve.client._sync_stream import SubmitStream
from rankserve.client._types import (
    Accepted,
    ChatMessage,
    Completion,
    Event,
    Failed,
    Finished,
    FinishReason,
    Queued,
    Request,
    RequestState,
    RequestStatus,
    Timing,
    Tokens,
)

__all__ = [
    "Aborted",
    "Accepted",
    "Activation",
    "AlreadyExists",
    "AsyncResilientSubmitStream",
    "AsyncSchedulerClient",
    "AsyncSubmitStream",
    "Cancelled",
    "ChatMessage",
    "Completion",
    "ConnectionFailed",
    "DeadlineExceeded",
    "Draining",
    "EndpointStats",
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
    "PolicyChange",
    "PromptScore",
    "Queued",
    "QuotaViolation",
    "RankServeError",
    "RankerAccuracy",
    "RankerVersionInfo",
    "Request",
    "RequestOptions",
    "RequestState",
    "RequestStatus",
    "RequestSummary",
    "ResilientSubmitStream",
    "ResourceExhausted",
    "Retry",
    "SchedulerClient",
    "Scores",
    "ServerState",
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
