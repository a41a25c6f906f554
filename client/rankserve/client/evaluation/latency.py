"""The latencies of one finished request, in the LLM's own seconds."""

from dataclasses import dataclass

from rankserve.records.results import ResultRecord, Run

FINISHED = "finished"


@dataclass(slots=True, frozen=True)
class Latency:
    """Latencies in seconds.

    Attributes:
        e2e_s: sent until the last event received, on the client's clock.
        ttft_s: sent until the first token received. Without token events: ``e2e_s`` less the time from first
            to last token on the server's clock.
        tpot_s: mean time per output token after the first, on the server's clock; None for a single token.
        normalised_s_per_token: ``e2e_s`` per output token, the paper's metric.
        max_waiting_s: longest silence, the paper's max_waiting_time: the larger of ``ttft_s`` and the largest
            gap between two tokens.
        scoring_s: accepted until scored, or started if sooner, on the server's clock.
    """

    e2e_s: float
    ttft_s: float
    tpot_s: float | None
    normalised_s_per_token: float
    max_waiting_s: float
    scoring_s: float


def finished(run: Run) -> list[ResultRecord]:
    """The requests that finished; only these have latencies."""
    return [result for result in run.results if result.outcome == FINISHED]


def latency(result: ResultRecord, time_scale: float) -> Latency:
    """The latencies of a finished request.

    Args:
        result: a finished request.
        time_scale: seconds of the LLM per wall-clock second, from the run's header.
    """
    e2e_s = result.end_s - result.sent_s
    decode_s = result.server_end_s - result.server_first_token_s
    ttft_s = e2e_s - decode_s if result.first_token_s is None else result.first_token_s - result.sent_s
    return Latency(
        e2e_s=e2e_s * time_scale,
        ttft_s=ttft_s * time_scale,
        tpot_s=decode_s / (result.output_tokens - 1) * time_scale if result.output_tokens > 1 else None,
        normalised_s_per_token=e2e_s / max(result.output_tokens, 1) * time_scale,
        max_waiting_s=max(ttft_s, result.max_token_gap_s) * time_scale,
        scoring_s=result.server_queued_s * time_scale,
    )


def latencies(run: Run) -> dict[str, Latency]:
    """Request id -> latencies, of the requests that finished."""
    return {result.id: latency(result, run.header.time_scale) for result in finished(run)}
