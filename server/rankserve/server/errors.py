"""What can go wrong with a request. `rpc.errors` maps each to a gRPC status.

RequestError
├── InvalidRequest          the request can never be served as it is
├── RequestIdInUse          same id, another body
├── RequestNotFound         unknown id, or no longer retained
├── NotAuthenticated        no token, or one that is nobody's
├── NotPermitted            the caller may not do this
├── TooManyStreams          so many calls are open that there is no room for one more
├── QueueFull               try again later
├── QuotaExceeded           the tenant has its share waiting; try again later
├── RequestShed             its place in a full queue went to a request of better priority
├── SlowClient              it does not read what it is sent
├── ServerDraining          try another server
├── RequestCancelled        by its client
│   └── StreamLost          its client is gone
├── DeadlinePassed          its deadline came first
├── DeadlineUnreachable     it would
├── AnswerLost              a restart lost what its answer went on from
├── JournalFailed           nothing can be recorded, so nothing is accepted
├── EngineFailed            the LLM is gone, and nothing is accepted
├── EngineRefused           the LLM will not answer this request
├── EngineLost              the LLM was lost amid the answer
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


class NotAuthenticated(RequestError):  # noqa: N818
    def __init__(self) -> None:
        super().__init__("missing or wrong token: send 'authorization: Bearer TOKEN'")


class NotPermitted(RequestError):  # noqa: N818
    """What the caller's token does not allow; the message says what."""


class TooManyStreams(RequestError):  # noqa: N818
    def __init__(self, limit: int, whose: str) -> None:
        super().__init__(
            f"{limit} calls {whose} are open, the most there may be: end some, or send many requests"
            " through one Submit stream"
        )


class QueueFull(RequestError):  # noqa: N818
    def __init__(self, limit: str, retry_after_s: float) -> None:
        super().__init__(f"the queue is full ({limit}); try again in {retry_after_s:.1f} s")
        self.retry_after_s = retry_after_s


class QuotaExceeded(QueueFull):
    """A limit of one tenant; `subject` and `limit` are for programs."""

    def __init__(self, tenant: str, limit: str, retry_after_s: float) -> None:
        super().__init__(f"{limit} of tenant {tenant!r}", retry_after_s)
        self.subject = f"tenant:{tenant}"
        self.limit = limit


class RequestShed(RequestError):  # noqa: N818
    def __init__(self, retry_after_s: float = 0.0) -> None:
        super().__init__(
            f"dropped from a full queue for a request of better priority; try again in {retry_after_s:.1f} s"
        )
        self.retry_after_s = retry_after_s


class SlowClient(RequestError):  # noqa: N818
    def __init__(self, patience_s: float) -> None:
        super().__init__(f"the stream was ended: its client read nothing for {patience_s:g} s")


class ServerDraining(RequestError):  # noqa: N818
    def __init__(self) -> None:
        super().__init__("the server is shutting down; submit the request elsewhere")


class RequestCancelled(RequestError):  # noqa: N818
    def __init__(self) -> None:
        super().__init__("cancelled")


class StreamLost(RequestCancelled):
    def __init__(self) -> None:
        RequestError.__init__(self, "cancelled: the stream that submitted it was lost")


class DeadlinePassed(RequestError):  # noqa: N818
    def __init__(self, deadline_ms: int) -> None:
        super().__init__(f"not finished within its deadline of {deadline_ms} ms")


class DeadlineUnreachable(RequestError):  # noqa: N818
    def __init__(self, deadline_ms: int, estimated_wait_s: float) -> None:
        super().__init__(
            f"its deadline of {deadline_ms} ms would pass before it starts, in about {estimated_wait_s:.1f} s"
        )


class AnswerLost(RequestError):  # noqa: N818
    def __init__(self) -> None:
        super().__init__("the server restarted amid the answer, and its LLM cannot go on from there")


class JournalFailed(RequestError):  # noqa: N818
    def __init__(self) -> None:
        super().__init__("the server cannot record requests at the moment; submit the request elsewhere")


class EngineFailed(RequestError):  # noqa: N818
    def __init__(self) -> None:
        super().__init__("the server has lost its LLM; submit the request elsewhere")


class EngineRefused(RequestError):  # noqa: N818
    """The LLM says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the LLM refused it: {reason}")


class EngineLost(RequestError):  # noqa: N818
    def __init__(self) -> None:
        super().__init__("the LLM was lost amid the answer, and no other can go on with it; send it again")


class InternalFailure(RequestError):  # noqa: N818
    def __init__(self) -> None:
        super().__init__("internal error; the server's log says what happened")


def restore(kind: str, message: str) -> RequestError:
    """An error of an accepted request as the journal kept it: its class by name, and its message."""
    kinds = {known.__name__: known for known in _all_kinds(RequestError)}
    found = kinds.get(kind, InternalFailure)
    error = found.__new__(found)
    Exception.__init__(error, message)
    return error


def _all_kinds(kind: type[RequestError]) -> list[type[RequestError]]:
    return [found for known in kind.__subclasses__() for found in (known, *_all_kinds(known))]
