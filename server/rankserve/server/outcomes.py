"""The result of a request that finished."""

from rankserve.server.events import Finished, Timing
from rankserve.server.requests import LiveRequest


def finished(live: LiveRequest, reason: str, *, policy: str, time_scale: float) -> Finished:
    """The terminal event of a request that got its whole answer.

    Args:
        live: the request.
        reason: why the answer ended, "stop" or "length".
        policy: name of the one that ordered it.
        time_scale: of the engine.
    """
    request = live.request
    return Finished(
        request_id=request.id,
        finish_reason=reason,
        input_tokens=request.prompt_tokens,
        output_tokens=request.output_tokens,
        text=live.answer.whole() if live.spec.result_only else "",
        score=live.score,
        ranker_version=live.ranker_version,
        policy=policy,
        preemptions=request.preemptions,
        promoted=request.promotions > 0,
        timing=_timing(live, time_scale),
        metadata=live.spec.metadata,
    )


def _timing(live: LiveRequest, time_scale: float) -> Timing:
    def after_acceptance(moment_s: float | None) -> float:
        return 0.0 if moment_s is None else moment_s - live.request.arrival_s

    return Timing(
        accept_time=live.accept_time,
        queued_s=after_acceptance(live.queued_s),
        scheduled_s=after_acceptance(live.scheduled_s),
        first_token_s=after_acceptance(live.first_token_s),
        last_token_s=after_acceptance(live.last_token_s),
        max_token_gap_s=live.max_token_gap_s,
        time_scale=time_scale,
    )
