"""What a server makes of what its predecessor left in the journal."""

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.messages import answer_text, inference
from support.paced_journal import MANY, IdleEngine, Life, read_now

from rankserve.server.engines.contract import EndpointState, TokensProduced
from rankserve.server.errors import AnswerLost, DeadlinePassed, InvalidRequest, RequestNotFound
from rankserve.server.events import Accepted, Event, EventStream, Failed, Finished, Queued, Tokens
from rankserve.server.journal.store import JournalError, JournalStore
from rankserve.server.rpc.validation import to_spec
from rankserve.server.settings import ServerSettings

WALL_S = 1e9


class Lives:
    """Lives on one journal; each begins where the clock is."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now_s = 0.0
        self.wall_s = WALL_S
        self.stream = EventStream()
        self.life: Life | None = None
        self.begin()

    def begin(self, settings: ServerSettings | None = None, engine: IdleEngine | None = None) -> Life:
        self.end()
        store = JournalStore(self.path)
        try:
            self.life = Life(store, settings, engine, lambda: self.now_s, lambda: self.wall_s)
        except BaseException:
            store.close()
            raise
        return self.life

    def end(self) -> None:
        if self.life is not None:
            self.life.store.close()
            self.life = None

    def submit(self, request_id: str, **fields: object) -> None:
        assert self.life is not None
        message = inference(request_id, detached=True, **fields)  # type: ignore[arg-type]
        spec = to_spec(message, max_prompt_bytes=10**6, replay=True, keep_body=True)
        self.life.dispatcher.submit(spec, self.stream)
        self.life.journal.commit()

    def produce(self, tokens: int, finished: str = "") -> None:
        """Starts whoever waits, and gives each so many tokens of `answer_text`, one at a time."""
        assert self.life is not None
        requests = [assignment.request for assignment in self.life.dispatcher.plan(MANY).starting]
        for token in range(tokens):
            text = answer_text(token + 1)[len(answer_text(token)) :]
            last = finished if token + 1 == tokens else ""
            for request in requests:
                request.output_tokens += 1
            self.life.dispatcher.produced([TokensProduced(r, 1, text, last) for r in requests])
        self.life.journal.commit()

    async def watch(self, request_id: str, offset: int = 0) -> list[Event]:
        assert self.life is not None
        stream = EventStream(owns=False)
        self.life.dispatcher.attach(self.life.dispatcher.find(request_id), stream, offset)
        return await read_now(stream)


@pytest.fixture
def lives(tmp_path: Path) -> Iterator[Lives]:
    lives = Lives(tmp_path / "journal")
    yield lives
    lives.end()


async def test_a_finished_result_is_the_same_after_any_number_of_restarts(lives: Lives) -> None:
    lives.submit("a", metadata={"colour": "bl\u00fc\0"}, priority=3, tenant="t")
    lives.produce(4, "length")
    before = await lives.watch("a")
    for _ in range(2):
        lives.begin()
        after = await lives.watch("a")
        assert after[-1] == before[-1]
        assert [type(event) for event in after] == [Accepted, Queued, Tokens, Finished]
        assert (await lives.watch("a", offset=3))[2:-1] == [Tokens("a", 3, 1, "goes ")]


async def test_an_answer_goes_on_from_what_was_recorded(lives: Lives) -> None:
    lives.submit("a")
    lives.produce(3)
    life = lives.begin()
    (assignment,) = life.dispatcher.plan(MANY).starting
    assert (assignment.answer, assignment.request.output_tokens) == (answer_text(3), 3)


async def test_an_engine_that_cannot_go_on_with_an_answer_ends_it_and_starts_others(lives: Lives) -> None:
    lives.submit("begun")
    lives.produce(3)
    lives.submit("result", result_only=True)
    lives.produce(3)
    lives.submit("waits")
    life = lives.begin(engine=IdleEngine(resumes=False))
    starting = life.dispatcher.plan(MANY).starting
    # Of an answer that nobody has seen a part of, another will do.
    assert [a.request.id for a in starting] == ["result", "waits"]
    life.journal.commit()
    *_, last = await lives.watch("begun")
    assert isinstance(last, Failed)
    assert (type(last.error), last.output_tokens) == (AnswerLost, 3)


async def test_what_this_engine_can_never_serve_ends_instead_of_blocking_the_queue(lives: Lives) -> None:
    lives.submit("long", max_tokens=5000)
    lives.submit("named", model="idle")
    lives.submit("short", max_tokens=10)
    engine = IdleEngine(max_model_len=100)
    engine.name = "another"
    life = lives.begin(engine=engine)
    assert [a.request.id for a in life.dispatcher.plan(MANY).starting] == ["short"]
    life.journal.commit()
    for request_id, field in (("long", "sampling.max_tokens"), ("named", "model")):
        *_, last = await lives.watch(request_id)
        assert isinstance(last, Failed)
        assert isinstance(last.error, InvalidRequest)
        assert last.error.field == field


async def test_who_waits_for_a_model_whose_endpoint_is_still_down_waits_on(lives: Lives) -> None:
    lives.submit("named", model="idle")
    engine = IdleEngine()
    engine.name = "another"
    engine.endpoints = [EndpointState("http://a/v1", name, "closed", 0, 8) for name in ("another", "")]
    life = lives.begin(engine=engine)
    assert [live.spec.id for live in life.dispatcher.live_requests()] == ["named"]


async def test_an_answer_longer_than_this_server_allows_ends_with_its_next_token(lives: Lives) -> None:
    lives.submit("a", sampling=None)
    lives.produce(30)
    life = lives.begin(settings=ServerSettings(default_max_tokens=10))
    (assignment,) = life.dispatcher.plan(MANY).starting
    assert assignment.request.max_tokens == 31


async def test_who_had_tokens_is_not_told_again_that_it_was_queued(lives: Lives) -> None:
    lives.submit("a")
    lives.produce(3)
    life = lives.begin()
    events = await lives.watch("a")
    assert [type(event) for event in events] == [Accepted, Queued, Tokens]
    life.journal.commit()
    life.dispatcher.plan(MANY)
    life.journal.commit()
    (live,) = life.dispatcher.live_requests()
    assert await read_now(live.streams[0]) == []


async def test_a_deadline_passes_while_the_server_is_down(lives: Lives) -> None:
    lives.submit("late", deadline_ms=5000)
    lives.submit("later", deadline_ms=60_000)
    lives.wall_s += 10
    life = lives.begin()
    assert [a.request.id for a in life.dispatcher.plan(MANY).starting] == ["later"]
    life.journal.commit()
    *_, last = await lives.watch("late")
    assert isinstance(last, Failed)
    assert isinstance(last.error, DeadlinePassed)
    assert life.dispatcher.counters.expired == 1


async def test_a_clock_that_was_set_back_makes_nobody_wait_from_the_future(lives: Lives) -> None:
    lives.submit("a", deadline_ms=5000)
    lives.submit("b")
    lives.produce(1, "stop")
    lives.submit("c")
    lives.now_s, lives.wall_s = 100.0, WALL_S - 3600
    life = lives.begin(ServerSettings(retain_s=60))
    assert life.dispatcher.find("c").request.arrival_s == 100.0
    lives.now_s = 161.0
    life.dispatcher._forget()
    with pytest.raises(RequestNotFound):
        life.dispatcher.find("b")


async def test_results_are_kept_for_the_retention_and_no_longer(lives: Lives) -> None:
    lives.submit("a")
    lives.produce(1, "stop")
    lives.wall_s += 30
    life = lives.begin(ServerSettings(retain_s=60))
    life.dispatcher.find("a")
    lives.wall_s += 31
    life = lives.begin(ServerSettings(retain_s=60))
    with pytest.raises(RequestNotFound):
        life.dispatcher.find("a")
    life.journal.commit()
    assert list(life.store.entries()) == []


async def test_the_latest_results_are_kept_by_count(lives: Lives) -> None:
    for n in range(5):
        lives.submit(f"r{n}")
        lives.produce(1, "stop")
        lives.wall_s += 1
    life = lives.begin(ServerSettings(retain_results=2))
    assert list(life.dispatcher.registry.ended) == ["r3", "r4"]


async def test_an_id_is_free_again_at_once_where_nothing_is_retained(lives: Lives) -> None:
    """In one batch the one is forgotten and the other accepted."""
    life = lives.begin(ServerSettings(retain_results=0))
    for _ in range(3):
        lives.submit("a")
        lives.produce(1, "stop")
    life.journal.commit()
    assert life.dispatcher.counters.finished == 3


def change(statement: str) -> Callable[[sqlite3.Connection], None]:
    return lambda connection: connection.executescript(statement).close()


@pytest.mark.parametrize(
    "damage",
    [
        change("UPDATE requests SET body = x'ffff'"),
        change("UPDATE requests SET body = ''"),
        change("UPDATE requests SET outcome = '{\"finished\"'"),
        change("UPDATE requests SET outcome = '{}'"),
        change("UPDATE requests SET outcome = '3'"),
        change("UPDATE requests SET outcome = '{\"finished\": 3}'"),
        change('UPDATE requests SET outcome = \'{"finished": {"timing": {}}}\''),
        change("UPDATE requests SET boundaries = x'00'"),
        change("UPDATE requests SET outcome = NULL; INSERT INTO tokens VALUES (1, 5, 1, x'00')"),
    ],
)
async def test_an_entry_that_cannot_be_is_refused_by_name(
    lives: Lives, damage: Callable[[sqlite3.Connection], None]
) -> None:
    lives.submit("a")
    lives.produce(2, "stop")
    lives.end()
    connection = sqlite3.connect(lives.path)
    damage(connection)
    connection.commit()
    connection.close()
    with pytest.raises(JournalError, match="entry of request 'a' cannot be read"):
        lives.begin()
