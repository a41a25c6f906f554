"""One request's life in the fake server."""

import threading
import time
from collections.abc import Callable

from google.protobuf.timestamp_pb2 import Timestamp

from rankserve.client._exceptions import FieldViolation, InvalidRequest, RankServeError
from rankserve.client._status import to_status
from rankserve.v1 import scheduler_pb2

Listener = Callable[[scheduler_pb2.RequestEvent], None]


class FakeRequest:
    """Keeps the events of one request and tells its listeners of each, those who come late too."""

    def __init__(self, message: scheduler_pb2.InferenceRequest) -> None:
        self.message = message
        self.state = scheduler_pb2.REQUEST_STATE_ACCEPTED
        self.output_tokens = 0
        self._events: list[scheduler_pb2.RequestEvent] = []
        self._listeners: list[Listener] = []
        self._lock = threading.RLock()
        self._accepted_at = time.monotonic()
        self._scheduled_s: float | None = None
        self._accept_time = Timestamp()
        self._accept_time.GetCurrentTime()

    @property
    def ended(self) -> bool:
        return self.state in (scheduler_pb2.REQUEST_STATE_FINISHED, scheduler_pb2.REQUEST_STATE_FAILED)

    @property
    def last_event(self) -> scheduler_pb2.RequestEvent:
        return self._events[-1]

    def listen(self, listener: Listener) -> None:
        with self._lock:
            for event in self._events:
                listener(event)
            self._listeners.append(listener)

    def queue(self, place: int) -> None:
        accepted = scheduler_pb2.Accepted(accept_time=self._accept_time)
        queued = scheduler_pb2.Queued(score=self.score, ranker_version="fake/1", place=place)
        self._tell(scheduler_pb2.RequestEvent(accepted=accepted), scheduler_pb2.REQUEST_STATE_ACCEPTED)
        self._tell(scheduler_pb2.RequestEvent(queued=queued), scheduler_pb2.REQUEST_STATE_WAITING)

    def watch(self, offset: int, listener: Listener) -> None:
        """As ``listen``, without the tokens before the offset."""

        def listen(event: scheduler_pb2.RequestEvent) -> None:
            if not event.HasField("tokens") or event.tokens.offset >= offset:
                listener(event)

        self.listen(listen)

    def answer(self, text: str, tokens: int | None = None) -> None:
        """Serves the request: one token a word, as many as are replayed or allowed. Or only the first few."""
        words = text.split()
        asked = self.message.replay_output_tokens or len(words)
        sampling = self.message.sampling
        count = min(asked, sampling.max_tokens) if sampling.HasField("max_tokens") else asked
        words = [words[index % len(words)] for index in range(count)]
        with self._lock:
            if self.ended:
                return
            if self._scheduled_s is None:
                self._scheduled_s = time.monotonic() - self._accepted_at
            self._produce(words if tokens is None else words[:tokens])
            if tokens is not None:
                return
            reason = scheduler_pb2.FINISH_REASON_STOP
            if count < asked:
                reason = scheduler_pb2.FINISH_REASON_LENGTH
            self._tell(
                scheduler_pb2.RequestEvent(finished=self._result(words, self._scheduled_s, reason)),
                scheduler_pb2.REQUEST_STATE_FINISHED,
            )

    def fail(self, error: RankServeError) -> bool:
        """Ends the request with an error. False if it had ended before."""
        with self._lock:
            if self.ended:
                return False
            failure = scheduler_pb2.RequestFailure(status=to_status(error), output_tokens=self.output_tokens)
            self._tell(scheduler_pb2.RequestEvent(failed=failure), scheduler_pb2.REQUEST_STATE_FAILED)
            return True

    @property
    def score(self) -> float:
        return -float(len(self.message.prompt))

    @property
    def accept_time(self) -> Timestamp:
        return self._accept_time

    def _produce(self, words: list[str]) -> None:
        """Tells of the tokens that it has not told of, two at a time."""
        if not self.message.result_only:
            for offset in range(self.output_tokens, len(words), 2):
                piece = words[offset : offset + 2]
                text = (" " if offset else "") + " ".join(piece)
                chunk = scheduler_pb2.TokenChunk(offset=offset, count=len(piece), text=text)
                self._tell(scheduler_pb2.RequestEvent(tokens=chunk), scheduler_pb2.REQUEST_STATE_RUNNING)
        self.output_tokens = len(words)

    def _result(
        self, words: list[str], scheduled_s: float, reason: scheduler_pb2.FinishReason.ValueType
    ) -> scheduler_pb2.RequestResult:
        now_s = time.monotonic() - self._accepted_at
        return scheduler_pb2.RequestResult(
            finish_reason=reason,
            input_tokens=self.message.replay_input_tokens or len(self.message.prompt.split()),
            output_tokens=len(words),
            text=" ".join(words) if self.message.result_only else "",
            score=self.score,
            ranker_version="fake/1",
            policy="fcfs",
            timing=scheduler_pb2.RequestTiming(
                accept_time=self._accept_time,
                scheduled_s=scheduled_s,
                first_token_s=now_s,
                last_token_s=now_s,
                time_scale=1.0,
            ),
            metadata=self.message.metadata,
        )

    def _tell(self, event: scheduler_pb2.RequestEvent, state: scheduler_pb2.RequestState.ValueType) -> None:
        with self._lock:
            event.request_id = self.message.id
            self.state = state
            self._events.append(event)
            for listener in self._listeners:
                listener(event)


def check(message: scheduler_pb2.InferenceRequest) -> None:
    """Raises InvalidRequest where a real server would refuse the values."""
    problems = []
    if not 1 <= len(message.id) <= 128:
        problems.append(FieldViolation("request.id", "must have 1 to 128 characters"))
    if not message.prompt and not message.chat.messages:
        problems.append(FieldViolation("request.prompt", "must not be empty"))
    if message.sampling.HasField("max_tokens") and message.sampling.max_tokens == 0:
        problems.append(FieldViolation("request.sampling.max_tokens", "must be at least 1"))
    if not -1000 <= message.priority <= 1000:
        problems.append(FieldViolation("request.priority", "must be between -1000 and 1000"))
    if problems:
        text = "; ".join(f"{problem.field} {problem.description}" for problem in problems)
        raise InvalidRequest(text, reason="INVALID_REQUEST", violations=tuple(problems))
