"""However links break and whatever still comes from them: one end for each request, and no token twice."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import cast

import pytest

from rankserve.client._config import Retry
from rankserve.client._exceptions import (
    Cancelled,
    ConnectionFailed,
    Draining,
    InternalError,
    NotFound,
    RankServeError,
    ResourceExhausted,
)
from rankserve.client._ledger import Ledger, Outcome
from rankserve.client._types import Accepted, Completion, Event, Failed, Finished, Queued, Request, Tokens

pytest.importorskip("hypothesis")
import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

ERRORS: list[Callable[[], RankServeError]] = [
    lambda: Draining("draining"),
    lambda: ConnectionFailed("gone"),
    lambda: ResourceExhausted("full", retry_after_s=1.0),
    lambda: ResourceExhausted("slow", reason="SLOW_CLIENT"),
    lambda: Cancelled("lost", reason="STREAM_LOST"),
    lambda: NotFound("unknown"),
    lambda: InternalError("fault"),
]


ENDINGS = [*["goes on"] * len(ERRORS), "finishes", "finishes", *ERRORS]


@dataclass(slots=True)
class Carried:
    """A request on a link, as the server at its other end has it."""

    request_id: str
    offset: int = 0
    told: list[type] = field(default_factory=list)


class LedgerMachine(RuleBasedStateMachine):
    """Links of servers that behave, each of which may break at any time and be heard of late."""

    @initialize(attempts=st.integers(1, 4), queue_full=st.booleans())
    def start(self, attempts: int, queue_full: bool) -> None:
        self.retry = Retry(attempts=attempts, queue_full=queue_full)
        self.ledger = Ledger(self.retry)
        self.links: dict[int, list[Carried]] = {}
        self.watches: set[int] = set()
        self.count, self.next_link = 0, 0
        self.sent: dict[str, int] = {}
        self.tokens: dict[str, int] = {}
        self.told: dict[str, list[type]] = {}

    def send(self, requests: list[Request]) -> None:
        self.next_link += 1
        self.ledger.carry(self.next_link, [request.id for request in requests])
        self.links[self.next_link] = [Carried(request.id) for request in requests]
        for request in requests:
            self.sent[request.id] += 1

    def act(self, outcome: Outcome) -> None:
        for event in outcome.events:
            self.tell(event)
        assert outcome.delay_s >= 0
        if outcome.again:
            self.send(outcome.again)
        if outcome.watch:
            self.next_link += 1
            self.ledger.follow(self.next_link, outcome.watch)
            self.watches.add(self.next_link)
            self.links[self.next_link] = [
                Carried(request_id, offset, [Accepted, Queued])
                for request_id, offset in outcome.watch.items()
            ]

    def tell(self, event: Event) -> None:
        """What the caller sees."""
        seen = self.told[event.request_id]
        assert not {Finished, Failed} & set(seen), "nothing comes after the end"
        match event:
            case Tokens():
                assert event.offset == self.tokens[event.request_id]
                self.tokens[event.request_id] += event.count
            case Accepted() | Queued():
                assert type(event) not in seen
        seen.append(type(event))

    @precondition(lambda self: sum(not {Finished, Failed} & set(told) for told in self.told.values()) < 3)
    @rule(detached=st.lists(st.booleans(), min_size=1, max_size=2))
    def submit(self, detached: list[bool]) -> None:
        requests = []
        for one in detached:
            self.count += 1
            requests.append(Request(prompt="so", id=f"r{self.count}", detached=one))
            self.sent[requests[-1].id] = self.tokens[requests[-1].id] = 0
            self.told[requests[-1].id] = []
        self.ledger.add(requests)
        with pytest.raises(ValueError, match="under way"):
            self.ledger.add(requests[:1])
        self.send(requests)

    @precondition(lambda self: self.links)
    @rule(which=st.integers(0, 99), events=st.integers(0, 4), ending=st.sampled_from(ENDINGS))
    def serve(self, which: int, events: int, ending: Callable[[], RankServeError] | str) -> None:
        link, carried = self.pick(which)
        request_id = carried.request_id
        coming: list[Event] = []
        for _ in range(events):
            if Accepted not in carried.told:
                coming.append(Accepted(request_id, datetime(2026, 1, 1, tzinfo=UTC)))
            elif Queued not in carried.told:
                coming.append(Queued(request_id, 0.0, "", 0, None))
            else:
                coming.append(Tokens(request_id, carried.offset, events, "x" * events))
                carried.offset += events
            carried.told.append(type(coming[-1]))
        if callable(ending):
            coming.append(Failed(request_id, ending(), carried.offset))
        elif ending == "finishes" and Tokens in carried.told:
            coming.append(Finished(request_id, cast(Completion, None)))
        if coming and isinstance(coming[-1], Finished | Failed):
            self.links[link].remove(carried)
        self.act(self.ledger.take(link, coming))
        self.forget_idle_links()

    @precondition(lambda self: self.links)
    @rule(which=st.integers(0, 99), error=st.sampled_from(ERRORS[:2]), still_heard_of=st.booleans())
    def break_link(self, which: int, error: Callable[[], RankServeError], still_heard_of: bool) -> None:
        link = list(self.links)[which % len(self.links)]
        lose = self.ledger.lose_watch if link in self.watches else self.ledger.lose
        self.act(lose(link, error()))
        if not still_heard_of:
            del self.links[link]

    def forget_idle_links(self) -> None:
        self.links = {link: carried for link, carried in self.links.items() if carried}

    @invariant()
    def attempts_are_counted(self) -> None:
        if hasattr(self, "ledger"):
            assert all(sent <= self.retry.attempts for sent in self.sent.values())
            ended = [bool({Finished, Failed} & set(told)) for told in self.told.values()]
            assert self.ledger.empty == all(ended)

    def teardown(self) -> None:
        """Once every link is gone, so often that nothing is sent again, each request has ended."""
        if not hasattr(self, "ledger"):
            return
        while self.links:
            self.break_link(0, ERRORS[1], still_heard_of=False)
        assert self.ledger.empty
        assert all(told[-1] in (Finished, Failed) for told in self.told.values())

    def pick(self, which: int) -> tuple[int, Carried]:
        pairs = [(link, carried) for link, all_of in self.links.items() for carried in all_of]
        return pairs[which % len(pairs)]


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(max_examples=100, stateful_step_count=40)
