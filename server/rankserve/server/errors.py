"""What can go wrong with a request. `rpc.errors` maps each to a gRPC status.

RequestError
├── InvalidRequest          the request can never be served as it is
├── RequestIdInUse          same id, another body
├── RequestNotFound         unknown id, or no longer retained
├── NotPermitted            the caller may not do this
├── QueueFull               try again later
├── ServerDraining          try another server
├── RequestCancelled        by its client, or its stream was lost
├── DeadlinePassed          its deadline came first
└── InternalFailure         a fault of the server; its log says which
"""


class RequestError(Exception):
    """Base of all. The message is shown to the client."""


class InvalidRequest(RequestError):  # noqa: N818 - names what happened, as its siblings do
    """A field the server cannot accept."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class RequestIdInUse(RequestError):  # noqa: N818
    def __init__(self, request_id: str) -> None:
        super().__init__(f"request id {request_id!r} is in use with another body; choose a new id")


class RequestNotFound(RequestError):  # noqa: N818
    def __init__(self, request_id: str) -> None:
        super().__init__(f"no request {request_id!r}: unknown, or ended too long ago")


class NotPermitted(RequestError):  # noqa: N818
    """What the caller's token does not allow; the message says what."""


class QueueFull(RequestError):  # noqa: N818
    def __init__(self, limit: str, retry_after_s: float) -> None:
        super().__init__(f"the queue is full ({limit}); try again in {retry_after_s:.1f} s")
        self.retry_after_s = retry_after_s


class ServerDraining(RequestError):  # noqa: N818
    def __init__(self) -> None:
        super().__init__("the server is shutting down; submit the request elsewhere")


class RequestCancelled(RequestError):  # noqa: N818
    def __init__(self) -> None:
        super().__init__("cancelled")


class DeadlinePassed(RequestError):  # noqa: N818
    def __init__(self, deadline_ms: int) -> None:
        super().__init__(f"not finished within its deadline of {deadline_ms} ms")


class InternalFailure(RequestError):  # noqa: N818
    def __init__(self) -> None:
        super().__init__("internal error; the server's log says what happened")
