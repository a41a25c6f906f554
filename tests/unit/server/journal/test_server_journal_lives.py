"""One journal, many lives of the server, any interleaving: nothing told is lost, nothing is told twice.

The dispatcher, the journal's records, the file and the recovery are the real ones; hypothesis decides when
the journal has written, when the server crashes, and what everybody does in between.
"""

import asyncio
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule
from support.messages import inference
from support.paced_journal import MANY, Life, read_now

from rankserve.server.engines.contract import TokensProduced
from rankserve.server.errors import RequestNotFound, ServerDraining, StreamLost
from rankserve.server.events import Accepted, EventStream, Failed, Finished, Queued, Tokens
from rankserve.server.journal.store import JournalStore
from rankserve.server.requests import RequestSpec
from rankserve.server.rpc.validation import to_spec
from rankserve.server.scheduling.request import Phase

ANSWER_TOKENS = 6


def spec_of(request_id: str, detached: bool, result_only: bool) -> RequestSpec:
    message = inference(request_id, detached=detached, result_only=result_only)
    return to_spec(message, max_prompt_bytes=1000, replay=True, keep_body=True)


def text_of(request_id: str, first: int, last: int) -> str:
    return "".join(f"{request_id}.{token} " for token in range(first, last))


@dataclass(slots=True, eq=False)
class Viewer:
    """A client with a stream: what it has been told, by request."""

    stream: EventStream
    offset: dict[str, int] = field(default_factory=dict)
    seen: dict[str, list[type]] = field(default_factory=dict)


class LivesMachine(RuleBasedStateMachine):
    requests: Bundle[str] = Bundle("requests")

    life: Life

    @initialize()
    def start(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.loop = asyncio.new_event_loop()
        self.viewers: list[Viewer] = []
        self.specs: dict[str, tuple[bool, bool]] = {}
        self.may_fail: set[str] = set()
        self.told_accepted: set[str] = set()
        self.told_tokens: dict[str, int] = {}
        self.told_outcome: dict[str, Finished | Failed] = {}
        self.run(self.begin())

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            self.run(self.to_the_end())
            self.life.store.close()
            self.loop.close()
            self.folder.cleanup()

    def run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self.loop.run_until_complete(coroutine)

    @rule(target=requests, detached=st.booleans(), result_only=st.booleans(), count=st.integers(1, 3))
    def submit(self, detached: bool, result_only: bool, count: int) -> Any:
        viewer = self.viewer()
        ids = []
        for _ in range(count):
            request_id = f"r{len(self.specs)}"
            self.specs[request_id] = (detached, result_only)
            ids.append(request_id)
            self.run(self.submit_one(request_id, viewer))
        return multiple(*ids)

    @rule(request_id=requests)
    def repeat(self, request_id: str) -> None:
        """Attaches to the request, or begins it anew if it ended before it had a token."""

        async def do() -> None:
            for viewer in self.viewers:
                await self.read_all(viewer)
            if self.begins_anew(request_id):
                del self.told_outcome[request_id]
            await self.submit_one(request_id, self.viewer())

        self.run(do())

    def begins_anew(self, request_id: str) -> bool:
        told = self.told_outcome.get(request_id)
        unserved = isinstance(told, Failed) and isinstance(told.error, ServerDraining | StreamLost)
        return unserved and not self.told_tokens.get(request_id)

    @rule(request_id=requests)
    def watch_from_the_beginning(self, request_id: str) -> None:
        self.run(self.attach(request_id, 0))

    @rule(request_id=requests)
    def watch_from_where_another_is(self, request_id: str) -> None:
        self.run(self.attach(request_id, self.told_tokens.get(request_id, 0)))

    @rule(request_id=requests)
    def cancel(self, request_id: str) -> None:
        async def do() -> None:
            try:
                self.life.dispatcher.cancel(request_id)
                self.may_fail.add(request_id)
            except RequestNotFound:
                assert request_id not in self.told_accepted

        self.run(do())

    @rule(data=st.data())
    def lose_a_stream(self, data: st.DataObject) -> None:
        if not self.viewers:
            return
        viewer = data.draw(st.sampled_from(self.viewers))
        self.viewers.remove(viewer)
        self.may_fail.update(r for r in viewer.offset if not self.specs[r][0])

        async def do() -> None:
            self.life.dispatcher.stream_lost(viewer.stream)

        self.run(do())

    @rule(data=st.data(), tokens=st.integers(1, ANSWER_TOKENS))
    def produce(self, data: st.DataObject, tokens: int) -> None:
        self.run(self.plan())
        dispatcher = self.life.dispatcher
        running = sorted(
            live.spec.id for live in dispatcher.live_requests() if live.request.phase is Phase.RUNNING
        )
        if running:
            self.run(self.give(data.draw(st.sampled_from(running)), tokens))

    @rule()
    def commit(self) -> None:
        async def do() -> None:
            self.life.journal.commit()

        self.run(do())

    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        if self.viewers:
            self.run(self.read_all(data.draw(st.sampled_from(self.viewers))))

    @rule()
    def crash(self) -> None:
        """What was not written is gone, and what streams have not delivered too."""
        self.viewers.clear()
        self.may_fail.update(r for r in self.specs if r not in self.told_accepted)
        self.run(self.begin())

    @rule()
    def drain_and_restart(self) -> None:
        async def do() -> None:
            self.may_fail.update(r for r, (detached, _) in self.specs.items() if not detached)
            await self.life.dispatcher.drain(0)
            self.life.journal.commit()
            for viewer in self.viewers:
                await self.read_all(viewer)
                # Whatever it had is told, ended or left to the next life: the stream is over.
                assert not viewer.stream.open_requests
            await self.begin()

        self.run(do())
        self.viewers.clear()

    @invariant()
    def books_balance(self) -> None:
        if not hasattr(self, "life"):
            return
        dispatcher = self.life.dispatcher
        dispatcher.scheduler.check_integrity()
        live = dispatcher.live_requests()
        waiting = [r for r in live if r.request.phase in (Phase.NEW, Phase.WAITING)]
        assert dispatcher.admission.waiting == len(waiting)
        assert dispatcher.admission.waiting_bytes == sum(r.spec.size_bytes for r in waiting)
        counters = dispatcher.counters
        ended = counters.finished + counters.cancelled + counters.expired + counters.failed
        assert counters.accepted == ended + len(live)

    async def begin(self) -> None:
        if hasattr(self, "life"):
            self.life.store.close()
        store = JournalStore(Path(self.folder.name) / "journal")
        # No machine fails here, and a commit that need not wait for a disk makes this ten times faster.
        store._connection.execute("PRAGMA synchronous = OFF")
        self.life = Life(store)
        for request_id in self.told_accepted:
            self.life.dispatcher.find(request_id)
        live = [r.number for r in self.life.dispatcher.live_requests()]
        assert live == sorted(live), "unfinished requests resume in the order of their acceptance"

    def viewer(self) -> Viewer:
        viewer = Viewer(EventStream())
        self.viewers.append(viewer)
        return viewer

    async def submit_one(self, request_id: str, viewer: Viewer) -> None:
        viewer.offset[request_id] = 0
        viewer.seen[request_id] = []
        self.life.dispatcher.submit(spec_of(request_id, *self.specs[request_id]), viewer.stream)

    async def attach(self, request_id: str, offset: int) -> None:
        viewer = Viewer(EventStream(owns=False), {request_id: offset}, {request_id: []})
        try:
            live = self.life.dispatcher.find(request_id)
        except RequestNotFound:
            assert request_id not in self.told_accepted
            return
        self.life.dispatcher.attach(live, viewer.stream, offset)
        self.viewers.append(viewer)

    async def plan(self) -> None:
        for assignment in self.life.dispatcher.plan(MANY).starting:
            request = assignment.request
            assert assignment.answer == text_of(request.id, 0, request.output_tokens)

    async def give(self, request_id: str, tokens: int) -> None:
        request = self.life.dispatcher.find(request_id).request
        first = request.output_tokens
        last = min(first + tokens, ANSWER_TOKENS)
        request.output_tokens = last
        finished = "stop" if last == ANSWER_TOKENS else ""
        text = text_of(request_id, first, last)
        self.life.dispatcher.produced([TokensProduced(request, last - first, text, finished)])

    async def read_all(self, viewer: Viewer) -> None:
        recorded = {entry.id: entry for entry in self.life.store.entries()}
        while events := await read_now(viewer.stream):
            for event in events:
                request_id = event.request_id
                entry = recorded[request_id]
                seen = viewer.seen[request_id]
                assert not {Finished, Failed} & set(seen), "nothing comes after the end"
                match event:
                    case Accepted():
                        assert seen == []
                        self.told_accepted.add(request_id)
                    case Queued():
                        assert seen == [Accepted]
                    case Tokens():
                        assert Queued in seen
                        assert not self.specs[request_id][1]
                        first, last = event.offset, event.offset + event.count
                        assert first == viewer.offset[request_id]
                        assert event.text == text_of(request_id, first, last)
                        kept = entry.text or "".join(text for _, _, text in entry.pieces)
                        assert kept.startswith(text_of(request_id, 0, last)), "told what is not recorded"
                        viewer.offset[request_id] = last
                        self.told_tokens[request_id] = max(self.told_tokens.get(request_id, 0), last)
                    case Finished() | Failed():
                        self.check_outcome(request_id, event, viewer.offset[request_id])
                        assert entry.outcome is not None, "an end was told that is not recorded"
                seen.append(type(event))

    def check_outcome(self, request_id: str, outcome: Finished | Failed, tokens: int) -> None:
        known = self.told_outcome.setdefault(request_id, outcome)
        if isinstance(outcome, Finished):
            assert known == outcome
            assert outcome.output_tokens == ANSWER_TOKENS
        else:
            assert isinstance(known, Failed)
            assert (type(known.error), known.output_tokens) == (type(outcome.error), outcome.output_tokens)
            assert request_id in self.may_fail
        if self.specs[request_id][1]:
            whole = text_of(request_id, 0, ANSWER_TOKENS)
            assert isinstance(outcome, Failed) or outcome.text == whole
        else:
            assert tokens == outcome.output_tokens

    async def to_the_end(self) -> None:
        """All that is live is served, and everybody is told how it ended."""
        watchers = [viewer for viewer in self.viewers if viewer.offset]
        for request_id in self.told_accepted:
            await self.attach(request_id, self.told_tokens.get(request_id, 0))
        for _ in range(ANSWER_TOKENS + 2):
            self.life.journal.commit()
            await self.plan()
            for live in self.life.dispatcher.live_requests():
                if live.request.phase is Phase.RUNNING:
                    await self.give(live.spec.id, 2)
        assert not self.life.dispatcher.live_requests()
        for viewer in [*watchers, *self.viewers]:
            await self.read_all(viewer)
            assert not viewer.stream.open_requests
            for request_id, seen in viewer.seen.items():
                assert seen[-1] in (Finished, Failed), f"{request_id} got no end"
        assert self.told_accepted <= self.told_outcome.keys()


LivesMachine.TestCase.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestLives = LivesMachine.TestCase
