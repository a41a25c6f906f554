"""What a run remembers of each request."""

from datetime import UTC, datetime

import pytest

from rankserve.client import Cancelled, Completion, Failed, Finished, FinishReason, Timing, Tokens
from rankserve.client.load.tracker import TrackedRequest, Tracker
from rankserve.records.workload import WorkloadRecord


@pytest.fixture
def tracker() -> Tracker:
    requests = {f"r{place}": TrackedRequest(WorkloadRecord(f"w{place}", "Hello"), 0.0) for place in range(3)}
    return Tracker(requests)


def finished(request_id: str) -> Finished:
    timing = Timing(datetime.now(UTC), 0.0, 0.1, 0.2, 0.3, 0.1, 1.0)
    completion = Completion(
        request_id, "", FinishReason.STOP, 1, 2, -1.5, "toy/1", "ranking", 3, True, timing, {}
    )
    return Finished(request_id, completion)


def test_a_result_holds_what_the_server_said(tracker: Tracker) -> None:
    tracker.mark_sent("r0", 1.0)
    tracker.note(Tokens("r0", 0, 1, "a"), 2.0)
    tracker.note(Tokens("r0", 1, 1, "b"), 3.0)
    tracker.note(finished("r0"), 4.0)
    result = tracker.requests["r0"].result()
    assert (result.id, result.outcome) == ("w0", "finished")
    assert (result.sent_s, result.first_token_s, result.end_s) == (1.0, 2.0, 4.0)
    assert (result.server_scheduled_s, result.server_first_token_s, result.server_end_s) == (0.1, 0.2, 0.3)
    assert (result.score, result.preemptions, result.promoted) == (-1.5, 3, True)


def test_the_first_end_counts(tracker: Tracker) -> None:
    """A request that was given up stays failed, also if its answer comes after all."""
    tracker.mark_sent("r0", 0.0)
    assert tracker.expire(timeout_s=1.0, now_s=1.0) == ["r0"]
    tracker.note(finished("r0"), 2.0)
    tracker.note(Failed("r0", Cancelled("late"), 0), 3.0)
    assert (tracker.finished, tracker.failed) == (0, 1)
    result = tracker.requests["r0"].result()
    assert (result.outcome, result.end_s) == ("deadline_exceeded", 1.0)


def test_only_what_was_sent_long_ago_is_given_up(tracker: Tracker) -> None:
    tracker.mark_sent("r0", 0.0)
    tracker.mark_sent("r1", 0.6)
    tracker.note(finished("r0"), 0.5)
    assert tracker.expire(timeout_s=1.0, now_s=1.5) == []
    assert tracker.expire(timeout_s=1.0, now_s=1.6) == ["r1"]
    assert tracker.expire(timeout_s=1.0, now_s=99.0) == []
    assert not tracker.done
    tracker.fail_open(Cancelled("stopped"), 100.0)
    assert tracker.done


def test_events_of_other_requests_are_ignored(tracker: Tracker) -> None:
    tracker.note(finished("of another run"), 1.0)
    assert (tracker.finished, tracker.failed) == (0, 0)
