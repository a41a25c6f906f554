"""The request log tells how a request went, and nothing that it said."""

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("structlog", reason="needs the extra server: pip install 'rankserve[server]'")

from structlog.testing import capture_logs
from structlog.typing import EventDict

from rankserve.server.errors import (
    DeadlinePassed,
    InternalFailure,
    InvalidRequest,
    RequestCancelled,
    RequestError,
)
from rankserve.server.events import Failed, Finished, Timing
from rankserve.server.observer import Observer
from rankserve.server.request_log import RequestLog
from rankserve.server.requests import LiveRequest, RequestSpec
from rankserve.server.scheduling.request import Request

SECRET = "the quick brown fox"


@pytest.fixture
def lines() -> Iterator[list[EventDict]]:
    with capture_logs() as captured:
        yield captured
    assert SECRET not in str(captured)


def request() -> LiveRequest:
    spec = RequestSpec(
        id="r-1",
        fingerprint=b"",
        size_bytes=1,
        prompt=SECRET,
        ranking_text=SECRET,
        tenant=SECRET,
        metadata={SECRET: SECRET},
        deadline_ms=900,
    )
    scheduled = Request(id="r-1", arrival_s=10.0, prompt_tokens=7, max_tokens=50, priority=2)
    live = LiveRequest(spec, scheduled, accept_time=1e9, streams=[])
    live.answer.append(1, SECRET)
    live.scheduled_s, live.first_token_s, live.last_token_s = 10.25, 10.5, 12.0
    live.ranker_version = "toy/1"
    scheduled.score = -1.5
    scheduled.output_tokens = 12
    return live


def finished(live: LiveRequest) -> Finished:
    timing = Timing(1e9, 0.1, 0.25, 0.5, 2.0, 0.1, 1.0)
    return Finished(
        "r-1", "stop", 7, 12, SECRET, -1.5, "toy/1", "ranking", 0, False, timing, {SECRET: SECRET}
    )


def test_a_request_that_finished(lines: list[EventDict]) -> None:
    log: Observer = RequestLog()
    live = request()
    log.accepted(live)
    log.scored(live, 0.0031)
    log.started(live)
    live.outcome = finished(live)
    log.ended(live)
    common: dict[str, Any] = {"request_id": "r-1"}
    assert lines == [
        {
            **common,
            "event": "request_accepted",
            "log_level": "debug",
            "input_tokens": 7,
            "max_tokens": 50,
            "priority": 2,
            "deadline_ms": 900,
        },
        {
            **common,
            "event": "request_scored",
            "log_level": "debug",
            "score": -1.5,
            "ranker_version": "toy/1",
            "score_ms": 3.1,
        },
        {**common, "event": "request_started", "log_level": "debug", "queue_ms": 250.0, "preemptions": 0},
        {
            **common,
            "event": "request_ended",
            "log_level": "info",
            "outcome": "finished",
            "finish_reason": "stop",
            "input_tokens": 7,
            "output_tokens": 12,
            "queue_ms": 250.0,
            "ttft_ms": 500.0,
            "last_token_ms": 2000.0,
            "score": -1.5,
            "ranker_version": "toy/1",
            "preemptions": 0,
            "promoted": False,
        },
    ]


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (RequestCancelled(), {"outcome": "cancelled"}),
        (DeadlinePassed(900), {"outcome": "expired"}),
        (InternalFailure(), {"outcome": "failed", "error": "InternalFailure"}),
    ],
)
def test_a_request_that_did_not(lines: list[EventDict], error: RequestError, outcome: dict[str, str]) -> None:
    live = request()
    live.scheduled_s = live.first_token_s = live.last_token_s = None
    live.outcome = Failed("r-1", error)
    RequestLog().ended(live)
    [line] = lines
    assert outcome.items() <= line.items()
    assert line["queue_ms"] is line["ttft_ms"] is None


def test_a_refusal_does_not_quote_the_client(lines: list[EventDict]) -> None:
    RequestLog().refused(InvalidRequest("tenant", SECRET))
    assert lines == [{"event": "request_refused", "log_level": "info", "error": "InvalidRequest"}]
