"""Which request a log line belongs to is known from the message that is being served."""

from collections.abc import Iterator

import pytest

pytest.importorskip("structlog", reason="needs the extra server: pip install 'rankserve[server]'")

from structlog.contextvars import clear_contextvars, get_contextvars

from rankserve.server.rpc.request_ids import bind_request_id
from rankserve.v1 import scheduler_pb2 as pb


@pytest.fixture(autouse=True)
def _no_context() -> Iterator[None]:
    clear_contextvars()
    yield
    clear_contextvars()


@pytest.mark.parametrize(
    "message",
    [
        pb.GenerateRequest(request=pb.InferenceRequest(id="r-1")),
        pb.SubmitRequest(request=pb.InferenceRequest(id="r-1")),
        pb.CancelRequestRequest(request_id="r-1"),
        pb.GetRequestRequest(request_id="r-1"),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_message_about_one_request_binds_its_id(message: object) -> None:
    bind_request_id(message)
    assert get_contextvars() == {"request_id": "r-1"}


@pytest.mark.parametrize(
    "message",
    [
        pb.GetStatsRequest(),
        pb.SubmitRequest(requests=[pb.InferenceRequest(id="r-2")]),
        pb.CancelRequestRequest(request_id="x" * 129),
        pb.CancelRequestRequest(request_id="\x1b[31m"),
        object(),
    ],
    ids=lambda message: type(message).__name__,
)
def test_any_other_leaves_none_of_the_message_before(message: object) -> None:
    bind_request_id(pb.CancelRequestRequest(request_id="r-1"))
    bind_request_id(message)
    assert get_contextvars() == {}
