"""What clients of a server with a journal were told over all its lives, and whether that can be.

The model: a request that was acknowledged ends, once, the same for everybody; each of its tokens is told each
client once and in order, whatever server it came from; and requests start in the order of their acceptance
(under FCFS).
"""

import re
from bisect import bisect
from collections import defaultdict
from dataclasses import dataclass, field

from support.messages import answer_text, code, reason

from rankserve.v1 import scheduler_pb2 as pb

_LETTERS = {"accepted": "a", "queued": "q", "tokens": "t", "finished": "F", "failed": "X"}
# Of one stream. One that attaches late begins later; a request that ends unscored was never queued.
_STREAM = re.compile("a?(X|q?t*[FX]?)")
_TIME_TOLERANCE_S = 0.001


@dataclass(slots=True)
class _Told:
    """What one client knows of a request."""

    tokens: int = 0
    text: str = ""
    accepted: bool = False
    end: pb.RequestEvent | None = None
    streams: defaultdict[str, str] = field(default_factory=lambda: defaultdict(str))


class RecordedHistory:
    """Is told what happened, in the order in which it was seen; `problems` says what should not have."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.sent: dict[str, pb.InferenceRequest] = {}
        self.accepted: dict[str, float] = {}
        self.lives: list[float] = []
        self._told: defaultdict[str, defaultdict[str, _Told]] = defaultdict(lambda: defaultdict(_Told))
        self._ends: dict[str, pb.RequestEvent] = {}
        self._may_be_cancelled: set[str] = set()
        self._cancelled: set[str] = set()

    # What happened

    def life_begins(self, unix_time_s: float) -> None:
        """A server starts."""
        self.lives.append(unix_time_s)

    def sends(self, request: pb.InferenceRequest) -> None:
        """A client submits a request, for the first time or again."""
        self.sent[request.id] = request

    def tells(self, client: str, stream: str, event: pb.RequestEvent) -> None:
        """A client is told something on one of its streams.

        Args:
            client: asks for each token once, in all of its streams together.
            stream: a name of its own for each.
            event: what it is told.
        """
        request_id, kind = event.request_id, event.WhichOneof("event") or "nothing"
        told = self._told[client][request_id]
        if told.end is not None:
            self._problem(client, request_id, f"is told {kind} after its end")
            return
        told.streams[stream] += _LETTERS[kind]
        if not _STREAM.fullmatch(told.streams[stream]):
            self._problem(client, request_id, f"is told {kind} out of order: {told.streams[stream]}")
        if event.HasField("accepted"):
            told.accepted = True
            self._accepts(client, event)
        elif event.HasField("tokens"):
            self._tells_tokens(client, told, event)
        elif event.HasField("finished") or event.HasField("failed"):
            told.end = event
            self._ends_for(client, told, event)

    def knows_nothing(self, client: str, request_id: str) -> None:
        """The server says that it has never heard of a request."""
        if request_id in self.accepted:
            self._problem(client, request_id, "is lost: it was accepted, and the server does not know it")

    def cancels(self, request_id: str, answer: bool | None) -> None:
        """A client cancels a request; the server answers, or does not (None)."""
        self._may_be_cancelled.add(request_id)
        if answer:
            self._cancelled.add(request_id)

    def loses_stream(self, request_ids: set[str]) -> None:
        """A client drops the stream on which it submitted these."""
        self._may_be_cancelled |= {i for i in request_ids if not self.sent[i].detached}

    # What is asked of it

    def tokens(self, client: str, request_id: str) -> int:
        """Where a client is to attach again."""
        return self._told[client][request_id].tokens

    def has_ended(self, client: str, request_id: str) -> bool:
        return self._told[client][request_id].end is not None

    def check(self) -> None:
        """Call it once every client was told how its requests ended. Raises AssertionError."""
        for client, requests in self._told.items():
            for request_id, told in requests.items():
                if told.end is None and request_id in self.accepted:
                    self._problem(client, request_id, "was accepted and never ended")
        for request_id in self.accepted.keys() - self._ends.keys():
            self._problem("everybody", request_id, "was accepted and never ended")
        for request_id in self._cancelled:
            end = self._ends.get(request_id)
            if end is not None and end.HasField("finished"):
                self._problem("everybody", request_id, "finished although its cancellation was confirmed")
        self._check_order()
        assert not self.problems, "\n".join(self.problems[:50])

    @property
    def finished(self) -> int:
        return sum(end.HasField("finished") for end in self._ends.values())

    @property
    def told_tokens(self) -> int:
        return sum(told.tokens for requests in self._told.values() for told in requests.values())

    def _problem(self, client: str, request_id: str, text: str) -> None:
        self.problems.append(f"{client}: {request_id} {text}")

    def _accepts(self, client: str, event: pb.RequestEvent) -> None:
        accept_time = event.accepted.accept_time
        moment_s = accept_time.seconds + accept_time.nanos / 1e9
        if abs(self.accepted.setdefault(event.request_id, moment_s) - moment_s) > _TIME_TOLERANCE_S:
            self._problem(client, event.request_id, "was accepted at two times")

    def _tells_tokens(self, client: str, told: _Told, event: pb.RequestEvent) -> None:
        chunk = event.tokens
        if chunk.offset < told.tokens:
            self._problem(client, event.request_id, f"token {chunk.offset} comes again")
        elif chunk.offset > told.tokens:
            self._problem(client, event.request_id, f"token {told.tokens} is missing")
        told.tokens = chunk.offset + chunk.count
        told.text += chunk.text
        if told.text != answer_text(told.tokens):
            self._problem(client, event.request_id, "has another text than it should")
            told.text = answer_text(told.tokens)

    def _ends_for(self, client: str, told: _Told, event: pb.RequestEvent) -> None:
        request_id = event.request_id
        sent = self.sent[request_id]
        known = self._ends.setdefault(request_id, event)
        if known != event:
            self._problem(client, request_id, "ended in two ways")
        if event.HasField("failed"):
            output_tokens = event.failed.output_tokens
            if request_id not in self._may_be_cancelled or reason(event.failed.status) not in (
                "CANCELLED",
                "STREAM_LOST",
            ):
                status = event.failed.status
                self._problem(client, request_id, f"failed: {code(status).name} {status.message}")
        else:
            output_tokens = event.finished.output_tokens
            if output_tokens != sent.replay_output_tokens:
                self._problem(client, request_id, f"finished after {output_tokens} tokens")
            if sent.result_only and event.finished.text != answer_text(output_tokens):
                self._problem(client, request_id, "has another text than it should")
        if not sent.result_only and told.tokens != output_tokens:
            self._problem(client, request_id, f"ended with {told.tokens} of {output_tokens} tokens told")

    def _check_order(self) -> None:
        """Among those that started in one life, nobody overtook one that was accepted before."""
        starts: defaultdict[int, list[tuple[float, float, str]]] = defaultdict(list)
        for request_id, end in self._ends.items():
            if end.HasField("finished") and request_id in self.accepted:
                accepted_s = self.accepted[request_id]
                started_s = accepted_s + end.finished.timing.scheduled_s
                starts[bisect(self.lives, started_s)].append((accepted_s, started_s, request_id))
        for life in starts.values():
            latest_s, latest_id = 0.0, ""
            for _, started_s, request_id in sorted(life):
                if started_s < latest_s - _TIME_TOLERANCE_S:
                    self._problem("everybody", request_id, f"started before {latest_id}, which came first")
                if started_s > latest_s:
                    latest_s, latest_id = started_s, request_id
