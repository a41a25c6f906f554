"""Requests: prompts or recorded lengths, with arrivals and predictions."""

from pathlib import Path

import numpy as np
from benchmarks.experiments.prompts import (
    ALPACA,
    Integers,
    Numbers,
    Prompts,
    replayed_lengths,
    token_counts,
)

from rankserve.client.evaluation.degraded import DegradedScores
from rankserve.client.load import DrawnArrivals
from rankserve.records.prompts import read_prompts
from rankserve.server.engines.simulated.profiles import Profile
from rankserve.server.scheduling.policies import Fcfs
from rankserve.server.simulation.columns import RequestColumns, columns
from rankserve.server.simulation.setup import SimulationSettings
from rankserve.server.simulation.simulator import simulate


def drawn(
    prompts: Prompts,
    arrivals: DrawnArrivals,
    count: int,
    seed: int,
    longest_answer: int,
    score: Numbers | None = None,
) -> RequestColumns:
    """Requests drawn with replacement from held-out prompts, with the ranker's predictions.

    Args:
        prompts: to draw from.
        arrivals: when the requests come.
        count: how many.
        seed: of the choice.
        longest_answer: `max_tokens` of each.
        score: another score for each of the prompts than the ranker's.
    """
    arrival_s = np.array(arrivals.draw(count))
    chosen = np.random.default_rng(seed).integers(0, len(prompts), count)
    return columns(
        arrival_s,
        prompts.prompt_tokens[chosen],
        prompts.output_tokens[chosen],
        max_tokens=np.full(len(arrival_s), longest_answer),
        score=(prompts.score if score is None else score)[chosen],
        expected_tokens=prompts.expected_tokens[chosen],
        expected_tokens_p90=prompts.expected_tokens_p90[chosen],
    )


def degraded(
    arrival_s: Numbers,
    prompt_tokens: Integers,
    output_tokens: Integers,
    scores: DegradedScores,
    chosen: Integers | slice = slice(None),
) -> RequestColumns:
    """Requests of recorded lengths, with degraded scores.

    Args:
        arrival_s: one a request.
        prompt_tokens, output_tokens, scores: of everything recorded.
        chosen: which of them are requested; all without it.
    """
    return columns(
        arrival_s,
        prompt_tokens[chosen],
        output_tokens[chosen],
        score=scores.score[chosen],
        expected_tokens=scores.expected_tokens[chosen],
        expected_tokens_p90=scores.expected_tokens_p90[chosen],
    )


def alpaca_lengths(data: Path) -> tuple[Integers, Integers]:
    """Prompt and replayed answer lengths of the whole file: for experiments without a trained ranker."""
    records = list(read_prompts(data / "lengths" / ALPACA.file))
    return token_counts(records), replayed_lengths(records)


def capacity(requests: RequestColumns, profile: Profile) -> float:
    """Requests per second that the engine serves when it never lacks any: all at once, under FCFS."""
    at_once = columns(np.zeros(len(requests)), requests.prompt_tokens, requests.true_output_tokens)
    totals = simulate(at_once, Fcfs(), profile, SimulationSettings()).totals
    return len(requests) / totals.end_s
