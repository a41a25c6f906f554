"""How well scores order requests by output length: Kendall's tau-b.

1 is the perfect order, 0 no relation. A good ranker is positive: scores are negated, since a higher score
means a shorter answer.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau

from rankserve.client.evaluation.columns import AnyRun, as_columns


def kendall_tau(run: AnyRun) -> float | None:
    """tau-b(-score, output tokens) over the finished requests that a ranker scored; None without any."""
    results = as_columns(run).finished().results
    return _tau_b(-results.score, results.output_tokens)


def kendall_tau_ceiling(run: AnyRun) -> float | None:
    """What a ranker could reach: the mean length of the prompt's other answers against the one replayed.

    None where the workload has one answer a prompt.
    """
    results = as_columns(run).finished().results
    return _tau_b(results.other_lengths_mean, results.output_tokens)


def kendall_tau_prompt_length(run: AnyRun) -> float | None:
    """What sorting by the prompt's length in characters, shortest first, would reach without any ranker."""
    results = as_columns(run).finished().results
    return _tau_b(results.prompt_chars, results.output_tokens)


def _tau_b(predicted: NDArray[np.generic], actual: NDArray[np.generic]) -> float | None:
    known = ~np.isnan(predicted)
    if not known.all():
        predicted, actual = predicted[known], actual[known]
    # All equal on one side: there is no order to agree with.
    if len(predicted) < 2 or np.all(predicted == predicted[0]):
        return None
    tau = float(kendalltau(predicted, actual, variant="b").statistic)
    return None if math.isnan(tau) else tau
