"""The latencies of finished requests, in the LLM's own seconds."""

from dataclasses import dataclass

import numpy as np

from rankserve.client.evaluation.columns import ColumnarRun, Numbers


@dataclass(slots=True, frozen=True, eq=False)
class Latencies:
    """Latencies in seconds, each of shape [requests].

    Attributes:
        e2e_s: sent until the last event received, on the client's clock.
        ttft_s: sent until the first token received. Without token events: ``e2e_s`` less the time from first
            to last token on the server's clock.
        tpot_s: mean time per output token after the first, on the server's clock; NaN for a single token.
        normalised_s_per_token: ``e2e_s`` per output token, the paper's metric.
        max_waiting_s: longest silence, the paper's max_waiting_time: the larger of ``ttft_s`` and the largest
            gap between two tokens.
        scoring_s: accepted until scored, or started if sooner, on the server's clock.
    """

    e2e_s: Numbers
    ttft_s: Numbers
    tpot_s: Numbers
    normalised_s_per_token: Numbers
    max_waiting_s: Numbers
    scoring_s: Numbers


def latencies(finished: ColumnarRun) -> Latencies:
    """The latencies of a run's requests, all of which finished (`ColumnarRun.finished`)."""
    results, scale = finished.results, finished.header.time_scale
    e2e_s = results.end_s - results.sent_s
    decode_s = results.server_end_s - results.server_first_token_s
    ttft_s = np.where(
        np.isnan(results.first_token_s), e2e_s - decode_s, results.first_token_s - results.sent_s
    )
    later_tokens = results.output_tokens - 1
    tpot_s = np.divide(decode_s, later_tokens, out=np.full(len(e2e_s), np.nan), where=later_tokens > 0)
    return Latencies(
        e2e_s=e2e_s * scale,
        ttft_s=ttft_s * scale,
        tpot_s=tpot_s * scale,
        normalised_s_per_token=e2e_s / np.maximum(results.output_tokens, 1) * scale,
        max_waiting_s=np.maximum(ttft_s, results.max_token_gap_s) * scale,
        scoring_s=results.server_queued_s * scale,
    )
