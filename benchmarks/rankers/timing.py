"""Microseconds a prompt on one core. Linux."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter

import numpy as np
from sklearn.pipeline import Pipeline

from rankserve.records.manifest_checks import read_version
from rankserve.server.ranking.session import OnnxScorer

BATCH = 32
_WARM_UP_CALLS = 10

Score = Callable[[Sequence[str]], object]


@dataclass(slots=True, frozen=True)
class Speed:
    """Microseconds on one core, each the median over rounds.

    Attributes:
        alone_p50_us: for one prompt at a time, the median prompt.
        alone_p99_us: the 99th percentile.
        batched_us: for each prompt in calls of 32: the whole test split's time / its prompts.
        batched_range_us: the fastest and the slowest round.
    """

    alone_p50_us: float
    alone_p99_us: float
    batched_us: float
    batched_range_us: tuple[float, float]


@dataclass(slots=True, frozen=True)
class Effort:
    """Attributes:
    rounds: in each of which everybody scores all prompts.
    alone: how many of the prompts, evenly spread, are scored one at a time in a round.
    """

    rounds: int
    alone: int


def measure_on_one_core(
    contenders: Mapping[str, Path | Pipeline], prompts: Sequence[str], effort: Effort
) -> dict[str, Speed]:
    """Measures in a new process that has one core from its start, as libraries count cores when they load.

    Args:
        contenders: by name: folders of ranker versions, or linear models.
        prompts: what is scored, in order of arrival.
        effort: how long.

    Raises:
        RankerVersionError: a version cannot be loaded.
    """
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as process, one_core():
        # The process starts on submission, with the cores that its parent has then.
        return process.submit(_measure_contenders, dict(contenders), list(prompts), effort).result()


@contextmanager
def one_core() -> Iterator[None]:
    """Keeps this thread and what it starts on one of the cores that it may use."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def measure(scorers: Mapping[str, Score], prompts: Sequence[str], effort: Effort) -> dict[str, Speed]:
    """Measures one after the other in each round, in another order each time: noise hits all alike."""
    picked = np.linspace(0, len(prompts) - 1, min(effort.alone, len(prompts))).round().astype(int)
    alone = [prompts[i] for i in picked]
    names = list(scorers)
    singles: dict[str, list[list[float]]] = {name: [] for name in names}
    batched: dict[str, list[float]] = {name: [] for name in names}
    for number in range(effort.rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            score = scorers[name]
            for prompt in alone[:_WARM_UP_CALLS]:
                score([prompt])
            singles[name].append([_seconds(score, [prompt]) for prompt in alone])
            calls = (prompts[start : start + BATCH] for start in range(0, len(prompts), BATCH))
            batched[name].append(sum(_seconds(score, call) for call in calls) / len(prompts))
    return {name: _speed(singles[name], batched[name]) for name in names}


def _seconds(score: Score, prompts: Sequence[str]) -> float:
    started = perf_counter()
    score(prompts)
    return perf_counter() - started


def _speed(singles: list[list[float]], batched: list[float]) -> Speed:
    p50, p99 = np.median(np.percentile(singles, [50, 99], axis=1), axis=1) * 1e6
    each_us = np.array(batched) * 1e6
    return Speed(
        alone_p50_us=float(p50),
        alone_p99_us=float(p99),
        batched_us=float(np.median(each_us)),
        batched_range_us=(float(each_us.min()), float(each_us.max())),
    )


def _measure_contenders(
    contenders: Mapping[str, Path | Pipeline], prompts: Sequence[str], effort: Effort
) -> dict[str, Speed]:
    scorers: dict[str, Score] = {
        name: OnnxScorer(each, read_version(each)).score if isinstance(each, Path) else each.predict
        for name, each in contenders.items()
    }
    return measure(scorers, prompts, effort)
