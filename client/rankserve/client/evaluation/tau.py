"""How well scores order requests by output length: Kendall's tau-b.

1 is the perfect order, 0 no relation. A good ranker is positive: scores are negated, since a higher score
means a shorter answer.
"""

import math
from collections.abc import Sequence

from scipy.stats import kendalltau

from rankserve.client.evaluation.latency import finished
from rankserve.records.results import Run


def kendall_tau(run: Run) -> float | None:
    """tau-b(-score, output tokens) over the finished requests that a ranker scored; None without any."""
    scored = [result for result in finished(run) if result.score is not None]
    return _tau_b(
        [-result.score for result in scored if result.score is not None],
        [result.output_tokens for result in scored],
    )


def kendall_tau_ceiling(run: Run) -> float | None:
    """What a ranker could reach: the mean length of the prompt's other answers against the one replayed.

    None where the workload has one answer a prompt.
    """
    sampled = [result for result in finished(run) if result.other_lengths]
    return _tau_b(
        [sum(result.other_lengths) / len(result.other_lengths) for result in sampled],
        [result.output_tokens for result in sampled],
    )


def kendall_tau_prompt_length(run: Run) -> float | None:
    """What sorting by the prompt's length in characters, shortest first, would reach without any ranker."""
    results = finished(run)
    return _tau_b([result.prompt_chars for result in results], [result.output_tokens for result in results])


def _tau_b(predicted: Sequence[float], actual: Sequence[float]) -> float | None:
    if len(predicted) < 2:
        return None
    tau = float(kendalltau(predicted, actual, variant="b").statistic)
    # All equal on one side: there is no order to agree with.
    return None if math.isnan(tau) else tau
