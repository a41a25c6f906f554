"""What became of each request of a run, from its events."""

from dataclasses import dataclass, replace
from math import inf

from rankserve.client._exceptions import DeadlineExceeded, RankServeError
from rankserve.client._types import Completion, Event, Failed, Finished, Tokens
from rankserve.records.results import ResultRecord
from rankserve.records.workload import WorkloadRecord


@dataclass(slots=True)
class TrackedRequest:
    """One request and what is known of it. Times are seconds after the start of the run."""

    record: WorkloadRecord
    planned_s: float
    sent_s: float | None = None
    first_token_s: float | None = None
    end_s: float | None = None
    completion: Completion | None = None
    error: RankServeError | None = None

    def result(self) -> ResultRecord:
        """The record of an ended request. A failed one has no server times and no length."""
        assert self.end_s is not None, "only asked for once every request has ended"
        result = ResultRecord(
            id=self.record.id,
            outcome="finished" if self.error is None else self.error.code.name.lower(),
            sent_s=self.end_s if self.sent_s is None else self.sent_s,
            end_s=self.end_s,
            first_token_s=self.first_token_s,
            other_lengths=self.record.other_lengths,
            prompt_chars=len(self.record.prompt),
            priority=self.record.priority,
            error="" if self.error is None else str(self.error),
        )
        if self.completion is None:
            return result
        done, timing = self.completion, self.completion.timing
        return replace(
            result,
            input_tokens=done.input_tokens,
            output_tokens=done.output_tokens,
            score=done.score if done.ranker_version else None,
            server_queued_s=timing.queued_s,
            server_scheduled_s=timing.scheduled_s,
            server_first_token_s=timing.first_token_s,
            server_end_s=timing.last_token_s,
            max_token_gap_s=timing.max_token_gap_s,
            preemptions=done.preemptions,
            promoted=done.promoted,
        )


class Tracker:
    """All requests of a run, by the id they were sent with, in the order they are sent."""

    def __init__(self, requests: dict[str, TrackedRequest]) -> None:
        self.requests = requests
        self.sent = 0
        self.finished = 0
        self.failed = 0
        self._oldest = iter(list(requests.items()))
        self._next: tuple[str, TrackedRequest] | None = next(self._oldest, None)

    @property
    def done(self) -> bool:
        return self.finished + self.failed == len(self.requests)

    def mark_sent(self, request_id: str, now_s: float) -> None:
        self.requests[request_id].sent_s = now_s
        self.sent += 1

    def note(self, event: Event, now_s: float) -> None:
        """Takes an event. One of a request that was given up before changes nothing."""
        request = self.requests.get(event.request_id)
        if request is None or request.end_s is not None:
            return
        if isinstance(event, Tokens):
            if request.first_token_s is None:
                request.first_token_s = now_s
        elif isinstance(event, Finished):
            request.end_s, request.completion = now_s, event.completion
            self.finished += 1
        elif isinstance(event, Failed):
            self.fail(event.request_id, event.error, now_s)

    def fail(self, request_id: str, error: RankServeError, now_s: float) -> None:
        """Ends a request with an error, unless it has ended."""
        request = self.requests[request_id]
        if request.end_s is None:
            request.end_s, request.error = now_s, error
            self.failed += 1

    def fail_open(self, error: RankServeError, now_s: float) -> None:
        """Ends every request that has not ended."""
        for request_id in self.requests:
            self.fail(request_id, error, now_s)

    def expire(self, timeout_s: float, now_s: float) -> list[str]:
        """Gives up what was sent ``timeout_s`` ago and has not ended; returns the ids."""
        expired = []
        while self._next is not None:
            request_id, request = self._next
            due_s = inf if request.sent_s is None else request.sent_s + timeout_s
            if request.end_s is None and due_s > now_s:
                break
            if request.end_s is None:
                message = f"no result within {timeout_s:g} s of sending"
                self.fail(request_id, DeadlineExceeded(message), now_s)
                expired.append(request_id)
            self._next = next(self._oldest, None)
        return expired
