"""What a fake engine was asked, for assertions."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from rankserve.server.engines.fake.batch import Sequence
from rankserve.server.engines.fake.faults import FaultKind

State = Literal["waiting", "running", "finished", "aborted", "failed"]


@dataclass(slots=True, eq=False)
class RequestRecord:
    """A request that was accepted, or that met a fault.

    Attributes:
        id: what its answer is called.
        path: where it was sent.
        body: what was sent.
        arrival_s: when it came, by the engine's clock.
        fault: what was done to it.
        tokens_sent: tokens of the chunks that were sent, or of the whole answer.
        outcome: "finished", "aborted" by its client, "failed" by a fault or as the engine was closed.
    """

    id: str
    path: str
    body: dict[str, Any]
    arrival_s: float
    fault: FaultKind | None
    sequence: Sequence
    tokens_sent: int = 0
    outcome: Literal["finished", "aborted", "failed"] | None = None

    @property
    def state(self) -> State:
        if self.outcome is not None:
            return self.outcome
        return "waiting" if self.start_order is None else "running"

    @property
    def priority(self) -> int:
        return self.sequence.priority

    @property
    def start_order(self) -> int | None:
        """Its place among all that started; None if it did not."""
        return self.sequence.start_order

    @property
    def first_token_order(self) -> int | None:
        """Its place among all that had a first token; None if it had none."""
        return self.sequence.first_token_order

    @property
    def preemptions(self) -> int:
        """How often it had to yield."""
        return self.sequence.preemptions

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "path": self.path,
            "state": self.state,
            "fault": self.fault,
            "priority": self.priority,
            "arrival": self.sequence.arrival,
            "arrival_s": self.arrival_s,
            "start_order": self.start_order,
            "first_token_order": self.first_token_order,
            "preemptions": self.preemptions,
            "prompt_tokens": self.sequence.prompt_tokens,
            "tokens_produced": self.sequence.produced,
            "tokens_sent": self.tokens_sent,
            "body": self.body,
        }


class RequestRecords:
    """The latest requests, in the order they came.

    Args:
        most: how many are kept.
    """

    def __init__(self, most: int) -> None:
        self.total = 0
        self._records: deque[RequestRecord] = deque(maxlen=most)

    def __iter__(self) -> Iterator[RequestRecord]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, place: int) -> RequestRecord:
        return self._records[place]

    def add(self, record: RequestRecord) -> None:
        self.total += 1
        self._records.append(record)

    def clear(self) -> None:
        self._records.clear()
