"""Requests that ended, as observers are told of them."""

from support.requests import make_request

from rankserve.server.errors import RequestCancelled, RequestError
from rankserve.server.events import Failed, Finished, Timing
from rankserve.server.requests import LiveRequest, RequestSpec

ACCEPT_TIME = 1_700_000_000.0
ARRIVAL_S = 100.0


def live_request(request_id: str = "r", **fields: object) -> LiveRequest:
    """A request of 16 prompt tokens, accepted at 100 s on the server's clock."""
    spec = RequestSpec(
        id=request_id, fingerprint=b"", size_bytes=2, prompt="heliotrope", ranking_text="heliotrope"
    )
    return LiveRequest(spec, make_request(request_id, arrival_s=ARRIVAL_S, **fields), ACCEPT_TIME, [])


def finish(
    live: LiveRequest, *, output_tokens: int = 11, reason: str = "stop", version: str = "toy/1"
) -> LiveRequest:
    """It started after 2 s, had its first token after 3 s and its last after 8 s, with a gap of 4 s."""
    request = live.request
    live.ranker_version = version
    request.output_tokens = output_tokens
    live.scheduled_s, live.first_token_s = ARRIVAL_S + 2, ARRIVAL_S + 3
    live.last_token_s = live.ended_s = ARRIVAL_S + 8
    live.outcome = Finished(
        request_id=request.id,
        finish_reason=reason,
        input_tokens=request.prompt_tokens,
        output_tokens=output_tokens,
        text="",
        score=live.score,
        ranker_version=version,
        policy="ranking",
        preemptions=request.preemptions,
        promoted=request.promotions > 0,
        timing=Timing(ACCEPT_TIME, 0.1, 2.0, 3.0, 8.0, 4.0, 1.0),
    )
    return live


def fail(live: LiveRequest, error: RequestError | None = None) -> LiveRequest:
    """It ended after 5 s, as far as it had come."""
    live.ended_s = ARRIVAL_S + 5
    live.outcome = Failed(live.spec.id, error or RequestCancelled())
    return live
