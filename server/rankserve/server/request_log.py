"""A log line for each event of a request. Never its prompt, its answer or its metadata."""

import structlog

from rankserve.server.errors import DeadlinePassed, RequestCancelled, RequestError
from rankserve.server.events import Finished
from rankserve.server.requests import LiveRequest

log = structlog.get_logger(__name__)


class RequestLog:
    """An `Observer`. At level info: which requests ended, and how, or were refused; at debug, their way."""

    def accepted(self, live: LiveRequest) -> None:
        request = live.request
        log.debug(
            "request_accepted",
            request_id=request.id,
            input_tokens=request.prompt_tokens,
            max_tokens=request.max_tokens,
            priority=request.priority,
            deadline_ms=live.spec.deadline_ms or None,
        )

    def refused(self, error: RequestError) -> None:
        # Not its text, which may quote the client. Its request's id is in the context of the call.
        log.info("request_refused", error=type(error).__name__)

    def scored(self, live: LiveRequest, duration_s: float) -> None:
        log.debug(
            "request_scored",
            request_id=live.request.id,
            score=live.score,
            ranker_version=live.ranker_version,
            score_ms=_ms(duration_s),
        )

    def started(self, live: LiveRequest) -> None:
        log.debug(
            "request_started",
            request_id=live.request.id,
            queue_ms=_after_arrival(live, live.scheduled_s),
            preemptions=live.request.preemptions,
        )

    def ended(self, live: LiveRequest) -> None:
        request = live.request
        log.info(
            "request_ended",
            request_id=request.id,
            **_outcome(live),
            input_tokens=request.prompt_tokens,
            output_tokens=request.output_tokens,
            queue_ms=_after_arrival(live, live.scheduled_s),
            ttft_ms=_after_arrival(live, live.first_token_s),
            last_token_ms=_after_arrival(live, live.last_token_s),
            score=live.score,
            ranker_version=live.ranker_version,
            preemptions=request.preemptions,
            promoted=request.promotions > 0,
        )


def _outcome(live: LiveRequest) -> dict[str, str]:
    if isinstance(live.outcome, Finished):
        return {"outcome": "finished", "finish_reason": live.outcome.finish_reason}
    error = live.outcome.error if live.outcome is not None else None
    if isinstance(error, RequestCancelled):
        return {"outcome": "cancelled"}
    if isinstance(error, DeadlinePassed):
        return {"outcome": "expired"}
    return {"outcome": "failed", "error": type(error).__name__}


def _after_arrival(live: LiveRequest, moment_s: float | None) -> float | None:
    return None if moment_s is None else _ms(moment_s - live.request.arrival_s)


def _ms(duration_s: float) -> float:
    return round(duration_s * 1000, 3)
