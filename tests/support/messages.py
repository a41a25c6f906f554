"""API messages for tests, and what is read from those that come back."""

from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc import RpcError, StatusCode
from grpc_status import rpc_status

from rankserve.v1 import scheduler_pb2 as pb

# In every prompt the tests send: a server that prints it anywhere has leaked a prompt.
PROMPT_MARKER = "heliotrope"


def inference(
    request_id: str, *, words: int = 2, output: int | None = 3, max_tokens: int = 8000, **fields: object
) -> pb.InferenceRequest:
    """A request that the simulated LLM answers with `output` tokens.

    Args:
        request_id: its id.
        words: length of the prompt; the toy ranker scores it ``offset - 1 - words``.
        output: replayed length; None sends no `replay_output_tokens`.
        max_tokens: of its sampling parameters.
        fields: any other field, or one of the above replaced.
    """
    values: dict[str, object] = {
        "prompt": " ".join([PROMPT_MARKER, *["one"] * (words - 1)]),
        "sampling": pb.SamplingParams(max_tokens=max_tokens),
        "replay_output_tokens": output,
        **fields,
    }
    return pb.InferenceRequest(id=request_id, **values)  # type: ignore[arg-type]


def answer_text(tokens: int) -> str:
    """What the simulated LLM answers with that many tokens."""
    words = ("so", "the", "answer", "goes", "on", "one", "token", "at", "a", "time", "until", "its", "length")
    return "".join(f"{words[index % len(words)]} " for index in range(tokens))


def code(status: Status) -> StatusCode:
    return next(code for code in StatusCode if code.value[0] == status.code)


def rich_status(error: RpcError) -> Status:
    """The google.rpc.Status that a failed call carries."""
    status: Status | None = rpc_status.from_call(error)
    assert status is not None, f"{error} has no google.rpc.Status"
    return status


def reason(status: Status) -> str:
    """ErrorInfo.reason."""
    info = ErrorInfo()
    _unpack(status, info)
    assert info.domain == "rankserve"
    return str(info.reason)


def violated_fields(status: Status) -> list[str]:
    """The fields of its BadRequest detail; each has a description."""
    details = BadRequest()
    _unpack(status, details)
    assert all(violation.description for violation in details.field_violations)
    return [violation.field for violation in details.field_violations]


def retry_delay_s(status: Status) -> float:
    details = RetryInfo()
    _unpack(status, details)
    return float(details.retry_delay.ToTimedelta().total_seconds())


def _unpack(status: Status, into: Message) -> None:
    found = [detail for detail in status.details if detail.Is(into.DESCRIPTOR)]
    assert len(found) == 1, f"{len(found)} details of type {into.DESCRIPTOR.full_name} in {status}"
    found[0].Unpack(into)
