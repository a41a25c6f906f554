"""The middleware around a stub, with a real ranker."""

import json
import math
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send
from support.asgi import Echo, call, live
from support.toy_ranker import publish

from rankserve.records.ranker_version import RankerVersionError
from rankserve.server.gateway.bodies import Bodies
from rankserve.server.gateway.middleware import ScoringMiddleware
from rankserve.server.gateway.priority import PriorityMarker, priority_policy
from rankserve.server.gateway.scorer import PromptScorer
from rankserve.server.gateway.settings import GatewaySettings
from rankserve.server.scheduling.engine_priority import engine_priority
from rankserve.server.scheduling.policies import make_policy


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Stack:
    """A middleware in priority mode and what is behind it."""

    def __init__(self, clock: Clock | None = None, **fields: Any) -> None:
        marks = {name: fields.pop(name) for name in ("lower_first", "trust_clients") if name in fields}
        settings = GatewaySettings(**fields)
        policy = priority_policy(settings)
        self.behind = Echo()
        self.scorer = PromptScorer(settings, policy)
        self.bodies = Bodies(settings.max_body_bytes, settings.max_total_body_bytes, settings.body_timeout_s)
        self.marker = PriorityMarker(policy, clock=clock or Clock(), **marks)
        self.front = ScoringMiddleware(self.behind, self.scorer, self.marker, self.bodies)

    async def priority(self, body: dict[str, Any], **how: Any) -> int:
        assert await call(self.front, body, **how) == (200, b"ok")
        priority = self.behind.fields["priority"]
        assert isinstance(priority, int)
        return priority


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    publish(tmp_path)
    stack = Stack(repository=tmp_path, policy="ranking")
    await stack.scorer.start()
    yield stack
    await stack.scorer.aclose()


async def test_the_better_score_has_the_lower_priority(stack: Stack) -> None:
    priorities = [await stack.priority({"prompt": " ".join(["one"] * n)}) for n in (1, 2, 5, 9)]
    # The toy ranker's score is minus the number of tokens, of which one begins each prompt.
    assert priorities == [engine_priority(0, float(n + 1), lower_first=True) for n in (1, 2, 5, 9)]
    assert priorities == sorted(priorities)
    assert stack.scorer.scored_total == 4


async def test_all_else_of_a_body_stays(stack: Stack) -> None:
    body = {
        "prompt": "one \ud800 \u00e9",
        "temperature": 0.1,
        "seed": 2**63,
        "x": [1e-7, None, {"y": False}],
        "stream": True,
    }
    raw = json.dumps(body).encode()
    assert await call(stack.front, raw, chunks=7, headers=[(b"authorization", b"Bearer t")]) == (200, b"ok")
    sent = stack.behind.fields
    del sent["priority"]
    assert sent == body
    assert stack.behind.header(b"authorization") == [b"Bearer t"]
    assert stack.behind.header(b"content-length") == [str(len(stack.behind.bodies[-1])).encode()]


async def test_of_several_prompts_the_longest_counts(stack: Stack) -> None:
    several = await stack.priority({"prompt": ["one", "one two three", "one two"]})
    assert several == await stack.priority({"prompt": "one two three"})


@pytest.mark.parametrize("body", [{"prompt": [1, 2, 3]}, {"prompt": "poison"}, {}])
async def test_what_cannot_be_scored_goes_on_with_the_middle(stack: Stack, body: dict[str, Any]) -> None:
    assert await stack.priority(body) == engine_priority(0, 5.0, lower_first=True)
    assert stack.scorer.neutral_total == 1


async def test_a_late_ranker_holds_nobody_up(tmp_path: Path) -> None:
    publish(tmp_path)
    stack = Stack(repository=tmp_path, policy="ranking", ranker_timeout_ms=1.0)
    await stack.scorer.start()
    assert await stack.priority({"prompt": "slow"}) == engine_priority(0, 5.0, lower_first=True)
    await stack.scorer.aclose()


async def test_a_broken_ranker_holds_nobody_up(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(text: str) -> None:
        raise OSError(text)

    monkeypatch.setattr(stack.scorer._ranker, "score", broken)
    assert await stack.priority({"prompt": "one"}) == engine_priority(0, 5.0, lower_first=True)


async def test_what_clients_say_of_their_priority_is_overwritten(stack: Stack) -> None:
    plain = await stack.priority({"prompt": "one"})
    header = (b"X-Vllm-Priority", b"-7")
    assert await stack.priority({"prompt": "one", "priority": -9}, headers=[header]) == plain
    assert stack.behind.header(b"X-Vllm-Priority") == []
    assert stack.behind.header(b"x-vllm-priority") == [str(plain).encode()]


@pytest.mark.parametrize(
    ("given", "band"),
    [(-3, -3), (10**30, 1000), (-(10**30), -1000), ("5", 0), (True, 0), (1.5, 0), (None, 0)],
)
async def test_trusted_clients_choose_their_band(tmp_path: Path, given: object, band: int) -> None:
    publish(tmp_path)
    stack = Stack(repository=tmp_path, policy="ranking", trust_clients=True)
    await stack.scorer.start()
    expected = engine_priority(band, 2.0, lower_first=True)
    assert await stack.priority({"prompt": "one", "priority": given}) == expected
    await stack.scorer.aclose()


@pytest.mark.parametrize(
    ("given", "band"),
    [
        (b"-7", -7),
        (b" +7 ", 7),
        (b"0", 0),
        (b"0" * 100 + b"7", 7),
        (b"9" * 5000, 1000),
        (b"-" + b"9" * 5000, -1000),
        # What is no number leaves it to the body.
        (b"--5", 3),
        (b"", 3),
        (b"-", 3),
        (b"5x", 3),
        (b"\xb2", 3),
    ],
)
async def test_a_trusted_header_goes_before_the_body_as_in_vllm(given: bytes, band: int) -> None:
    stack = Stack(policy="fcfs", trust_clients=True)
    expected = engine_priority(band, 1000.0, lower_first=True)
    assert await stack.priority({"priority": 3}, headers=[(b"x-vllm-priority", given)]) == expected


async def test_engines_that_serve_high_priorities_first_get_the_opposite(tmp_path: Path) -> None:
    publish(tmp_path)
    stack = Stack(repository=tmp_path, policy="ranking", lower_first=False)
    await stack.scorer.start()
    assert await stack.priority({"prompt": "one"}) == -engine_priority(0, 2.0, lower_first=True)
    await stack.scorer.aclose()


async def test_ageing_is_part_of_the_number(tmp_path: Path) -> None:
    publish(tmp_path)
    clock = Clock()
    stack = Stack(clock, repository=tmp_path, policy="aged_ranking", ageing_tokens_per_s=10.0)
    await stack.scorer.start()
    long = await stack.priority({"prompt": "one two three four five six"})
    short = await stack.priority({"prompt": "one"})
    clock.now_s += 100.0
    late_short = await stack.priority({"prompt": "one"})
    assert short < long < late_short
    await stack.scorer.aclose()


async def test_first_come_first_served_needs_no_ranker(tmp_path: Path) -> None:
    clock = Clock()
    stack = Stack(clock, repository=tmp_path / "nowhere", policy="fcfs")
    await stack.scorer.start()
    first = await stack.priority({"prompt": "one two three"})
    clock.now_s += 1.0
    assert first < await stack.priority({"prompt": "one"})
    await stack.scorer.aclose()


def test_other_policies_are_refused() -> None:
    with pytest.raises(ValueError, match="aged_ranking, ranking, fcfs"):
        priority_policy(GatewaySettings(policy="hrrn"))


@pytest.mark.parametrize("raw", [b"", b"{", b"[1]", b'"x"', b"\xff"])
async def test_what_is_no_object_goes_on_as_it_came(stack: Stack, raw: bytes) -> None:
    assert await call(stack.front, raw, headers=[(b"x-vllm-priority", b"-7")]) == (200, b"ok")
    assert stack.behind.bodies == [raw]
    assert stack.behind.header(b"x-vllm-priority") == []


@pytest.mark.parametrize("raw", [b"[" * 100_000, b'{"priority": -7, "x": ' + b"[" * 100_000])
async def test_what_cannot_be_read_to_its_end_is_refused(stack: Stack, raw: bytes) -> None:
    status, body = await call(stack.front, raw)
    assert (status, json.loads(body)["error"]["code"]) == (400, "invalid_body")
    assert not stack.behind.bodies
    assert stack.bodies.held_bytes == 0


async def test_numbers_that_json_does_not_know_go_on_as_python_writes_them(stack: Stack) -> None:
    await stack.priority({"prompt": "one", "temperature": math.nan})
    assert b"NaN" in stack.behind.bodies[-1]


async def test_other_paths_go_by(stack: Stack) -> None:
    header = (b"X-Vllm-Priority", b"-7")
    body = b'{ "priority" : 7 }'
    assert await call(stack.front, body, path="/v1/embeddings", headers=[header]) == (200, b"ok")
    assert stack.behind.bodies == [body]
    assert stack.behind.header(b"X-Vllm-Priority") == []


async def test_on_other_paths_too_trusted_clients_keep_their_header() -> None:
    stack = Stack(policy="fcfs", trust_clients=True)
    header = (b"x-vllm-priority", b"-7")
    await call(stack.front, {}, path="/v1/embeddings", headers=[header])
    assert stack.behind.header(b"x-vllm-priority") == [b"-7"]


async def test_messages_have_their_priority_in_the_header(stack: Stack) -> None:
    turn = {"role": "user", "content": [{"type": "text", "text": "one two"}]}
    await stack.priority({"system": "be short", "messages": [turn]}, path="/v1/messages")
    expected = engine_priority(0, 3.0, lower_first=True)
    assert stack.behind.header(b"x-vllm-priority") == [str(expected).encode()]


async def test_bodies_are_bounded(tmp_path: Path) -> None:
    stack = Stack(policy="fcfs", max_body_bytes=100)
    status, body = await call(stack.front, b"x" * 101, chunks=5)
    assert (status, json.loads(body)["error"]["code"]) == (413, "request_too_large")
    assert (await call(stack.front, b"x" * 100))[0] == 200
    stack = Stack(policy="fcfs", max_total_body_bytes=100)
    status, body = await call(stack.front, b"x" * 101)
    assert (status, json.loads(body)["error"]["code"]) == (503, "overloaded")
    assert (await call(stack.front, b"x" * 100))[0] == 200


async def test_a_body_may_grow_by_what_is_written_into_it() -> None:
    for raw in (b'{"prompt": "one"}', b'{"priority": 1}'):
        stack = Stack(policy="fcfs", max_body_bytes=len(raw), max_total_body_bytes=len(raw))
        assert await call(stack.front, raw) == (200, b"ok")
        assert len(stack.behind.bodies[0]) > len(raw)


async def test_a_body_counts_until_it_is_handed_over_and_then_nothing_holds_it() -> None:
    stack = Stack(policy="fcfs")
    raw = json.dumps({"prompt": [1, 2, 3] * 100_000}).encode()
    seen: list[tuple[int, int]] = []

    async def look(scope: Scope, receive: Receive, send: Send) -> None:
        before = stack.bodies.held_bytes
        assert len((await receive())["body"]) > len(raw)
        assert tracemalloc.get_traced_memory()[0] < 200_000
        seen.append((before, stack.bodies.held_bytes))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    stack.front = ScoringMiddleware(look, stack.scorer, stack.marker, stack.bodies)
    tracemalloc.start()
    try:
        assert await call(stack.front, raw) == (200, b"ok")
    finally:
        tracemalloc.stop()
    assert seen == [(len(raw), 0)]


async def test_a_body_that_nobody_takes_is_not_held() -> None:
    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 401, "headers": []})

    stack = Stack(policy="fcfs")
    await call(ScoringMiddleware(refuse, stack.scorer, stack.marker, stack.bodies), {"prompt": "x"})
    assert stack.bodies.held_bytes == 0


async def test_a_slow_body_is_refused() -> None:
    stack = Stack(policy="fcfs", body_timeout_s=0.05)
    status, body = await call(stack.front, {"prompt": "one two three"}, chunks=3, silence_s=0.04)
    assert (status, json.loads(body)["error"]["code"]) == (408, "body_timeout")


async def test_a_compressed_body_is_refused(stack: Stack) -> None:
    status, _ = await call(stack.front, b"x", headers=[(b"content-encoding", b"gzip")])
    assert status == 415
    assert not stack.behind.bodies


async def test_a_client_that_leaves_early_is_not_asked_for(stack: Stack) -> None:
    assert await call(stack.front, {"prompt": "one"}, chunks=2, leaves=True) == (0, b"")
    assert not stack.behind.bodies


async def test_the_ranker_is_loaded_before_the_application_starts(tmp_path: Path) -> None:
    publish(tmp_path)
    stack = Stack(repository=tmp_path)
    said = await live(stack.front)
    assert [message["type"] for message in said] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]
    assert stack.behind.lived
    assert stack.scorer.reference == "toy/1"


async def test_without_its_ranker_the_application_does_not_start(tmp_path: Path) -> None:
    stack = Stack(repository=tmp_path / "nowhere")
    (said,) = await live(stack.front)
    assert said["type"] == "lifespan.startup.failed"
    assert "nowhere" in said["message"]
    assert not stack.behind.lived


async def test_a_policy_by_length_needs_a_version_that_gives_lengths(tmp_path: Path) -> None:
    publish(tmp_path, calibration=None)
    scorer = PromptScorer(GatewaySettings(repository=tmp_path), make_policy("aged_ranking"))
    with pytest.raises(RankerVersionError, match="policy 'ranking'"):
        await scorer.start()
