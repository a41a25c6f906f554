"""Kendall's tau-b of scores against output lengths, and how high it can get.

Sampled lengths of one prompt differ, so no ranker reaches 1; a tau is always reported with its ceilings.
"""

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from rankserve.records.prompts import PromptRecord


def kendall_tau(scores: ArrayLike, output_tokens: ArrayLike) -> float:
    """tau-b(-score, output tokens): 1 if higher scores always had shorter answers, 0 if unrelated.

    0 where it is undefined: fewer than two prompts, or all scores or all lengths equal.
    """
    if np.size(scores) < 2:
        return 0.0
    tau = float(stats.kendalltau(-np.asarray(scores, dtype=np.float64), output_tokens).statistic)
    return 0.0 if np.isnan(tau) else tau


def lengths_matrix(records: Sequence[PromptRecord]) -> NDArray[np.float64]:
    """Sampled lengths [prompts, samples], of as many samples as every prompt has."""
    samples = min(len(record.output_lengths) for record in records)
    return np.array([record.output_lengths[:samples] for record in records], dtype=np.float64)


def tau_report(scores: ArrayLike, lengths: NDArray[np.float64]) -> dict[str, float]:
    """tau against single samples (averaged over them) and, with several, against their mean.

    Args:
        scores: [prompts].
        lengths: [prompts, samples].
    """
    columns = lengths.T
    report = {"kendall_tau": float(np.mean([kendall_tau(scores, column) for column in columns]))}
    if len(columns) > 1:
        report["kendall_tau_mean"] = kendall_tau(scores, lengths.mean(axis=1))
    return report


def ceilings(lengths: NDArray[np.float64]) -> dict[str, float]:
    """What knowledge of other samples of the same prompts reaches on one sample; empty with one sample.

    Returns:
        ``ceiling_sample``: one sample orders another, averaged over pairs. ``ceiling_mean``: the mean of
        all others orders one, averaged; the best that a ranker can hope for.
    """
    columns = lengths.T
    if len(columns) < 2:
        return {}
    pairs = itertools.combinations(range(len(columns)), 2)
    return {
        "ceiling_sample": float(np.mean([kendall_tau(-columns[i], columns[j]) for i, j in pairs])),
        "ceiling_mean": float(
            np.mean(
                [
                    kendall_tau(-np.delete(columns, i, axis=0).mean(axis=0), column)
                    for i, column in enumerate(columns)
                ]
            )
        ),
    }
