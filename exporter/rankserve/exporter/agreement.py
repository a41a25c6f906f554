"""Kendall's tau-b between scores and output lengths, its ceiling, and how often two rankings disagree."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from rankserve.exporter.validation import ValidationSet
from rankserve.records.prompts import PromptRecord

Scores = npt.NDArray[np.float64]


@dataclass(slots=True, frozen=True)
class Agreement:
    """How well scores order the prompts of one validation set.

    Attributes:
        source: the set's name; "" if it has none.
        prompts: how many.
        tau: Kendall's tau-b against single answers, averaged over a prompt's answers.
        ceiling: what the mean of a prompt's other answers reaches on one; no ranker can do better. None with
            one answer a prompt, where nothing is known about it.
    """

    source: str
    prompts: int
    tau: float
    ceiling: float | None


def agreements(scores: Scores, sets: Sequence[ValidationSet]) -> list[Agreement]:
    """Each set ordered on its own.

    Args:
        scores: of all sets' prompts, in their order.
        sets: prompts with lengths.
    """
    found, start = [], 0
    for each in sets:
        columns = _lengths(each.records).T
        own = scores[start : start + len(each.records)]
        start += len(each.records)
        tau = float(np.mean([kendall_tau(own, column) for column in columns]))
        found.append(Agreement(each.source, len(each.records), tau, _ceiling(columns)))
    return found


def mean_tau(found: Sequence[Agreement]) -> float:
    """tau averaged over the sets by their prompts."""
    return float(np.average([each.tau for each in found], weights=[each.prompts for each in found]))


def mean_ceiling(found: Sequence[Agreement]) -> float | None:
    """The ceiling averaged like the tau; None if that of a set is unknown."""
    ceilings = [each.ceiling for each in found if each.ceiling is not None]
    if len(ceilings) < len(found):
        return None
    return float(np.average(ceilings, weights=[each.prompts for each in found]))


def kendall_tau(scores: npt.ArrayLike, output_tokens: npt.ArrayLike) -> float:
    """tau-b(-score, output tokens): 1 if a higher score always had the shorter answer. 0 where undefined."""
    tau = float(stats.kendalltau(-np.asarray(scores, dtype=np.float64), output_tokens).statistic)
    return 0.0 if np.isnan(tau) else tau


def discordant_share(one: Scores, other: Scores) -> float:
    """Share of pairs that two scorings order differently; a pair tied in one of them counts half."""
    tau = float(stats.kendalltau(one, other).statistic)
    return 0.0 if np.isnan(tau) else (1.0 - tau) / 2.0


def _ceiling(columns: npt.NDArray[np.float64]) -> float | None:
    if len(columns) < 2:
        return None
    others = [np.delete(columns, index, axis=0).mean(axis=0) for index in range(len(columns))]
    return float(
        np.mean([kendall_tau(-other, column) for other, column in zip(others, columns, strict=True)])
    )


def _lengths(records: Sequence[PromptRecord]) -> npt.NDArray[np.float64]:
    """[prompts, answers], of as many answers as every prompt has."""
    answers = min(len(record.output_lengths) for record in records)
    return np.array([record.output_lengths[:answers] for record in records], dtype=np.float64)
