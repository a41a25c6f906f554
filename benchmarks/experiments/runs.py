"""Runs policies on the same requests, seed by seed, and takes their figures."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field

import numpy as np
from benchmarks.experiments.bench import Bench

from rankserve.progress import stage
from rankserve.server.engines.simulated.profiles import Profile
from rankserve.server.scheduling.policies import Policy
from rankserve.server.simulation.columns import RequestColumns
from rankserve.server.simulation.outcome import Outcome
from rankserve.server.simulation.setup import SimulationSettings
from rankserve.server.simulation.simulator import simulate


@dataclass(slots=True, frozen=True)
class Contender:
    """A policy with settings, as a table names it."""

    label: str
    policy: Policy
    settings: SimulationSettings = field(default_factory=SimulationSettings)


@dataclass(slots=True, frozen=True)
class Scenario:
    """Requests and an engine.

    Attributes:
        label: names it in tables.
        profile: the engine.
        requests: seed -> requests.
    """

    label: str
    profile: Profile
    requests: Callable[[int], RequestColumns]


@dataclass(slots=True, frozen=True)
class Figures:
    """One run. Latencies in seconds from arrival; waiting_* are queue depths; kv_* shares of the KV blocks.

    ``max_waiting`` is the paper's: the larger of TTFT and the largest gap between two tokens of a request.
    """

    mean_s_per_token: float
    p99_s_per_token: float
    mean_e2e_s: float
    p99_e2e_s: float
    mean_ttft_s: float
    p99_ttft_s: float
    longest_ttft_s: float
    mean_max_waiting_s: float
    p99_max_waiting_s: float
    longest_max_waiting_s: float
    waiting_mean: float
    waiting_max: int
    kv_mean: float
    kv_max: float
    preemptions: int
    promotions: int
    requests: int
    end_s: float


Results = dict[tuple[str, str], list[Figures]]

# More than any run here has; memory is only touched as far as it is used.
_MOMENTS = 4_000_000


def run_all(bench: Bench, scenarios: Sequence[Scenario], contenders: Sequence[Contender]) -> Results:
    """Figures of each (scenario label, contender label), a run a seed in the order of the seeds."""

    def run_seed(job: tuple[Scenario, int]) -> list[Figures]:
        scenario, seed = job
        requests = scenario.requests(seed)
        return [run_one(requests, scenario.profile, contender) for contender in contenders]

    jobs = [(scenario, seed) for scenario in scenarios for seed in bench.seeds]
    results: Results = {}
    # The compiled simulation releases the interpreter's lock.
    with ThreadPoolExecutor(bench.threads) as pool, stage("simulating", len(jobs), "seeds") as simulating:
        for (scenario, _), figures in zip(jobs, pool.map(run_seed, jobs), strict=True):
            for contender, figure in zip(contenders, figures, strict=True):
                results.setdefault((scenario.label, contender.label), []).append(figure)
            simulating.advance()
    return results


def run_one(requests: RequestColumns, profile: Profile, contender: Contender) -> Figures:
    """One run's figures."""
    settings = contender.settings
    moments = 0 if settings.preemption == "off" else _MOMENTS
    return measure(simulate(requests, contender.policy, profile, settings, timeline=moments), profile)


def measure(outcome: Outcome, profile: Profile) -> Figures:
    """The figures of a run. With a timeline, the mean queue depth counts evicted requests as well."""
    arrival_s, output_tokens = outcome.columns.arrival_s, outcome.columns.true_output_tokens
    e2e_s, ttft_s = outcome.end_s - arrival_s, outcome.first_token_s - arrival_s
    per_token_s = e2e_s / output_tokens
    max_waiting_s = np.maximum(ttft_s, outcome.max_token_gap_s)
    totals = outcome.totals
    return Figures(
        mean_s_per_token=float(per_token_s.mean()),
        p99_s_per_token=float(np.percentile(per_token_s, 99)),
        mean_e2e_s=float(e2e_s.mean()),
        p99_e2e_s=float(np.percentile(e2e_s, 99)),
        mean_ttft_s=float(ttft_s.mean()),
        p99_ttft_s=float(np.percentile(ttft_s, 99)),
        longest_ttft_s=float(ttft_s.max()),
        mean_max_waiting_s=float(max_waiting_s.mean()),
        p99_max_waiting_s=float(np.percentile(max_waiting_s, 99)),
        longest_max_waiting_s=float(max_waiting_s.max()),
        waiting_mean=_waiting_mean(outcome),
        waiting_max=totals.waiting_max,
        kv_mean=totals.kv_blocks_mean / profile.kv_blocks,
        kv_max=totals.kv_blocks_max / profile.kv_blocks,
        preemptions=totals.preemptions,
        promotions=totals.promotions,
        requests=len(outcome.columns),
        end_s=totals.end_s,
    )


def _waiting_mean(outcome: Outcome) -> float:
    timeline = outcome.timeline
    if not len(timeline):
        return outcome.totals.waiting_mean
    if len(timeline) == _MOMENTS:
        raise RuntimeError(f"the run has more than {_MOMENTS:,} steps: raise the limit in {__file__}")
    seconds = np.diff(timeline[:, 0], append=outcome.totals.end_s)
    return float(seconds @ timeline[:, 2] / outcome.totals.end_s)


def csv_rows(bench: Bench, results: Results, profiles: dict[str, Profile]) -> list[dict[str, object]]:
    """A row a run.

    Args:
        bench: with the seeds.
        results: of `run_all`.
        profiles: by scenario label.
    """
    return [
        {
            "scenario": scenario,
            "policy": contender,
            "seed": seed,
            "profile": profiles[scenario].name,
            "batch_cap": profiles[scenario].max_sequences,
            "token_budget": profiles[scenario].max_batched_tokens,
            "kv_blocks": profiles[scenario].kv_blocks,
            **asdict(figures),
        }
        for (scenario, contender), each in results.items()
        for seed, figures in zip(bench.seeds, each, strict=True)
    ]
