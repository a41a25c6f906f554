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
    """Means over the requests of each repetition, in s.

    Attributes:
        real: as measured.
        simulated: under the steps around the run.
        own_speed: under these, all scaled by one factor with which TPOT is the run's own.
        slower: under steps that take 1 % longer.
    """

    policy: str
    metric: str
    real: tuple[float, ...]
    simulated: tuple[float, ...]
    own_speed: tuple[float, ...]
    slower: tuple[float, ...]

    def cells(self) -> list[str]:
        single = [_change(s, r) for s, r in zip(self.simulated, self.real, strict=True)]
        return [
            self.policy,
            self.metric,
            f"{mean(self.real):.3g}",
            f"{mean(self.simulated):.3g}",
            f"{_change(mean(self.simulated), mean(self.real)):+.1%}",
            f"{min(single):+.1%} to {max(single):+.1%}",
            f"{_change(mean(self.own_speed), mean(self.real)):+.1%}",
            f"{_change(mean(self.slower), mean(self.simulated)):+.1%}",
        ]


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
        runs = [
            _all_speeds(places, run_path(places, scenario, policy, n), prompts, policy)
            for n in range(repetitions)
        ]
        for metric in METRICS:
            columns = ([float(one[metric]["mean"]) for one in column] for column in zip(*runs, strict=True))
            found.append(Prediction(policy, metric, *map(tuple, columns)))
    return found


def _all_speeds(
    places: Places, path: Path, prompts: Sequence[PromptRecord], policy: str
) -> tuple[Mapping[str, Any], ...]:
    """Metrics of a run: real, simulated, at its own speed, and 1 % slower."""
    real = evaluate(read_run(path)).to_json()
    simulated, slower = (_simulate(places, path, prompts, policy, factor) for factor in (1.0, _SLOWER))
    tpot = simulated["tpot_s"]["mean"]
    # TPOT follows the steps' time and, where the batch is not always full, how many are in it.
    follows = max(0.5, _change(slower["tpot_s"]["mean"], tpot) / _change(_SLOWER, 1.0))
    factor = 1 + _change(real["tpot_s"]["mean"], tpot) / follows
    return real, simulated, _simulate(places, path, prompts, policy, factor), slower


def _change(value: float, before: float) -> float:
    return value / before - 1


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


HEADINGS = (
    *("policy", "mean of", "real s", "simulated s", "error", "of single runs"),
    *("at the runs' own speed", "of 1 % slower steps"),
)


def table(found: Sequence[Prediction]) -> str:
    lines = [HEADINGS, ["---", "---", *["---:"] * (len(HEADINGS) - 2)], *(each.cells() for each in found)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
