"""The judge of the durability promise: it acquits what is right, and catches each thing that can be wrong."""

from collections.abc import Callable

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.status_pb2 import Status
from support.messages import answer_text, inference
from support.recorded_history import RecordedHistory

from rankserve.server.errors import InternalFailure, RequestCancelled
from rankserve.server.rpc.errors import to_status
from rankserve.v1 import scheduler_pb2 as pb


def accepted(request_id: str, at_s: int = 100) -> pb.RequestEvent:
    return pb.RequestEvent(request_id=request_id, accepted=pb.Accepted(accept_time=Timestamp(seconds=at_s)))


def queued(request_id: str) -> pb.RequestEvent:
    return pb.RequestEvent(request_id=request_id, queued=pb.Queued())


def tokens(request_id: str, first: int, last: int, text: str | None = None) -> pb.RequestEvent:
    text = answer_text(last)[len(answer_text(first)) :] if text is None else text
    chunk = pb.TokenChunk(offset=first, count=last - first, text=text)
    return pb.RequestEvent(request_id=request_id, tokens=chunk)


def finished(request_id: str, output: int = 5, scheduled_s: float = 1.0, text: str = "") -> pb.RequestEvent:
    timing = pb.RequestTiming(scheduled_s=scheduled_s)
    result = pb.RequestResult(output_tokens=output, timing=timing, text=text)
    return pb.RequestEvent(request_id=request_id, finished=result)


def failed(request_id: str, status: Status, output: int = 2) -> pb.RequestEvent:
    return pb.RequestEvent(
        request_id=request_id, failed=pb.RequestFailure(status=status, output_tokens=output)
    )


CANCELLED = to_status(RequestCancelled())


def two_lives() -> RecordedHistory:
    """`a` is begun in one life and ended in the next; `b` waits, `c` is cancelled, `d` wants the result."""
    history = RecordedHistory()
    history.life_begins(90.0)
    for request_id in "abcd":
        history.sends(inference(request_id, output=5, result_only=request_id == "d"))
        history.tells("me", "submit", accepted(request_id))
    for event in (queued("a"), tokens("a", 0, 2), queued("c"), tokens("c", 0, 2)):
        history.tells("me", "submit", event)
    history.cancels("c", True)
    history.life_begins(101.5)
    for event in (
        accepted("a"),
        queued("a"),
        tokens("a", 2, 5),
        finished("a", scheduled_s=2.0),
        accepted("b"),
        queued("b"),
        tokens("b", 0, 5),
        finished("b", scheduled_s=3.0),
        accepted("c"),
        failed("c", CANCELLED),
        accepted("d"),
        queued("d"),
        finished("d", scheduled_s=4.0, text=answer_text(5)),
    ):
        history.tells("me", "watch", event)
    return history


def audit(history: RecordedHistory, request_id: str, *events: pb.RequestEvent) -> None:
    for event in (accepted(request_id), queued(request_id), *events):
        history.tells("auditor", "watch", event)


def test_a_history_that_is_right_is_acquitted() -> None:
    history = two_lives()
    audit(history, "a", tokens("a", 0, 5), finished("a", scheduled_s=2.0))
    history.check()
    assert (history.finished, history.told_tokens) == (3, 17)


def forgets(history: RecordedHistory) -> None:
    history.sends(inference("e"))
    history.tells("me", "submit-2", accepted("e"))


def knows_nothing(history: RecordedHistory) -> None:
    history.knows_nothing("me", "a")


def never_ends_for_one(history: RecordedHistory) -> None:
    audit(history, "a", tokens("a", 0, 5))


def with_events(*events: pb.RequestEvent) -> Callable[[RecordedHistory], None]:
    def tell(history: RecordedHistory) -> None:
        history.sends(inference("e", output=5))
        for event in (accepted("e"), queued("e"), *events):
            history.tells("me", "submit-2", event)

    return tell


def ends_differently(history: RecordedHistory) -> None:
    audit(history, "a", tokens("a", 0, 5), finished("a", scheduled_s=2.5))


def ends_once_more_after_a_restart(history: RecordedHistory) -> None:
    history.tells("me", "watch-2", finished("a", scheduled_s=2.0))


def finishes_what_was_cancelled(history: RecordedHistory) -> None:
    with_events(tokens("e", 0, 5), finished("e", scheduled_s=5.0))(history)
    history.cancels("e", True)


def fails_without_a_reason(history: RecordedHistory) -> None:
    history.cancels("e", None)
    with_events(tokens("e", 0, 2), failed("e", to_status(InternalFailure())))(history)


def overtakes(history: RecordedHistory) -> None:
    history.sends(inference("e", output=1))
    for event in (accepted("e", 101), queued("e"), tokens("e", 0, 1), finished("e", 1, scheduled_s=2.5)):
        history.tells("me", "submit-2", event)


def accepts_twice(history: RecordedHistory) -> None:
    history.tells("auditor", "watch", accepted("a", 105))


def shortens_a_result(history: RecordedHistory) -> None:
    history.sends(inference("e", output=5, result_only=True))
    for event in (accepted("e"), queued("e"), finished("e", scheduled_s=9.0, text=answer_text(4))):
        history.tells("me", "submit-2", event)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (forgets, "e was accepted and never ended"),
        (knows_nothing, "a is lost"),
        (never_ends_for_one, "auditor: a was accepted and never ended"),
        (with_events(tokens("e", 0, 3), tokens("e", 2, 5), finished("e")), "e token 2 comes again"),
        (with_events(tokens("e", 0, 3), tokens("e", 4, 5), finished("e")), "e token 3 is missing"),
        (with_events(tokens("e", 0, 4), finished("e")), "e ended with 4 of 5 tokens told"),
        (with_events(tokens("e", 0, 6), finished("e", 6)), "e finished after 6 tokens"),
        (with_events(tokens("e", 0, 5, "so what"), finished("e")), "e has another text"),
        (with_events(tokens("e", 0, 5), finished("e"), finished("e")), "e is told finished after its end"),
        (with_events(tokens("e", 0, 2), queued("e")), "e is told queued out of order"),
        (with_events(tokens("e", 0, 2), failed("e", CANCELLED)), "e failed: CANCELLED"),
        (ends_once_more_after_a_restart, "a is told finished after its end"),
        (ends_differently, "a ended in two ways"),
        (finishes_what_was_cancelled, "e finished although its cancellation was confirmed"),
        (fails_without_a_reason, "e failed: INTERNAL"),
        (overtakes, "e started before d, which came first"),
        (accepts_twice, "a was accepted at two times"),
        (shortens_a_result, "e has another text"),
    ],
)
def test_what_is_wrong_is_caught(wrong: Callable[[RecordedHistory], None], says: str) -> None:
    history = two_lives()
    wrong(history)
    with pytest.raises(AssertionError) as caught:
        history.check()
    assert says in str(caught.value)
