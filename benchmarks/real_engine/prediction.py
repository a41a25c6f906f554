"""What the simulator says of the same requests, under a profile of the steps measured around them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.real_engine.command import rankserve_json
from benchmarks.real_engine.comparison import GATHER_MS, Scenario, run_path
from benchmarks.real_engine.places import Places
from benchmarks.real_engine.step_times import around, decode_ms, make_profile
from benchmarks.real_engine.training import RANKER

from rankserve.client.evaluation.metrics import evaluate
from rankserve.records.jsonl import write_jsonl
from rankserve.records.prompts import PromptRecord
from rankserve.records.results import read_run
from rankserve.records.workload import WorkloadRecord

# By how much slower steps tell how much the waits make of the LLM's speed.
_SLOWER = 1.01
METRICS = ("e2e_s", "ttft_s", "tpot_s", "normalised_s_per_token")


@dataclass(slots=True, frozen=True)
class Prediction:
    """Means over the repetitions, in s.

    Attributes:
        real: as measured.
        simulated: under the steps around the runs.
        slower: under steps that take 1 % longer.
    """

    policy: str
    metric: str
    real: float
    simulated: float
    slower: float

    @property
    def error(self) -> float:
        """Relative."""
        return self.simulated / self.real - 1

    @property
    def of_a_percent(self) -> float:
        """What 1 % of the LLM's speed makes."""
        return self.slower / self.simulated - 1


def predict(
    places: Places, scenario: Scenario, prompts: Sequence[PromptRecord], repetitions: int
) -> list[Prediction]:
    """Simulates each run with the lengths and arrivals that it had.

    Raises:
        OSError: a run is not there.
        StepTimesError: the steps around it are not.
        subprocess.CalledProcessError: `rankserve` failed, and has said why.
    """
    found = []
    for policy in scenario.policies:
        paths = [run_path(places, scenario, policy, n) for n in range(repetitions)]
        real = [evaluate(read_run(path)).to_json() for path in paths]
        simulated = [_simulate(places, path, prompts, policy) for path in paths]
        slower = [_simulate(places, path, prompts, policy, _SLOWER) for path in paths]
        found += [
            Prediction(policy, metric, *(_mean(runs, metric) for runs in (real, simulated, slower)))
            for metric in METRICS
        ]
    return found


def _mean(runs: Sequence[Mapping[str, Any]], metric: str) -> float:
    return mean(float(run[metric]["mean"]) for run in runs)


def steps_ms(places: Places, scenario: Scenario, repetitions: int) -> tuple[float, float]:
    """The fastest and the slowest step of a full batch that was measured around the runs.

    Raises:
        StepTimesError: one is not there.
    """
    paths = [
        run_path(places, scenario, policy, n) for policy in scenario.policies for n in range(repetitions)
    ]
    found = [decode_ms(measurement) for path in paths for measurement in around(path)]
    return min(found), max(found)


def _simulate(
    places: Places, path: Path, prompts: Sequence[PromptRecord], policy: str, slower: float = 1.0
) -> Mapping[str, Any]:
    texts = {record.id: record.prompt for record in prompts}
    with TemporaryDirectory() as folder:
        workload = Path(folder) / "workload.jsonl"
        write_jsonl(
            workload,
            (
                WorkloadRecord(
                    result.id,
                    texts[result.id],
                    arrival_s=result.sent_s,
                    input_tokens=result.input_tokens,
                    output_tokens=result.output_tokens,
                ).to_json()
                for result in read_run(path).results
            ),
        )
        done = rankserve_json(
            *("simulate", "--workload", workload, "--policy", policy, "--gather-ms", GATHER_MS),
            *("--profile", make_profile(around(path), Path(folder), slower)),
            *("--repository", places.models, "--ranker", RANKER),
        )
    [simulated] = done["runs"]
    return dict(simulated)


def table(found: Sequence[Prediction]) -> str:
    lines = [
        "| policy | mean of | real s | simulated s | error | of 1 % slower steps |",
        "|---|---|---:|---:|---:|---:|",
        *(
            f"| {p.policy} | {p.metric} | {p.real:.3g} | {p.simulated:.3g} | {p.error:+.1%}"
            f" | {p.of_a_percent:+.1%} |"
            for p in found
        ),
    ]
    return "\n".join(lines)
