"""Policies on the real LLM: the same prompts through RankServe under each, again and again.

Prompts are those that the ranker was not trained on. Sampling is greedy, so that an answer is as long under
every policy and an oracle can know it: lengths are those of a first run, FCFS through the same server.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

from benchmarks.real_engine.places import Places
from benchmarks.real_engine.server import SERVED_MODEL
from benchmarks.real_engine.step_times import StepTimes
from benchmarks.real_engine.training import RANKER, held_out

from rankserve.cli.policy_runs import running_server
from rankserve.client import AsyncSchedulerClient
from rankserve.client.evaluation.comparison import compare
from rankserve.client.evaluation.metrics import RunMetrics, evaluate
from rankserve.client.evaluation.summary import Summary
from rankserve.client.load import Arrivals, Burst, LoadOptions, Poisson, run_load
from rankserve.progress import tell
from rankserve.records.results import Run, read_run, write_run
from rankserve.records.workload import WorkloadRecord

LENGTH_CAP = 300
# Until a burst has arrived and is scored.
GATHER_MS = 100
# Times the rate of the load. Where as many come as are served, waits make much of every per cent of the LLM's
# speed; far beyond that they make less of it.
_OVERLOAD = 2
# The last is the oracle: it knows the lengths.
POLICIES = ("fcfs", "ranking", "bounded_ranking", "sjf")


@dataclass(slots=True, frozen=True)
class Scenario:
    """What is sent, and when.

    Attributes:
        name: in files and tables.
        requests: the first so many of the held-out prompts.
        arrivals: by repetition.
        policies: what it is tried under.
    """

    name: str
    requests: int
    arrivals: Callable[[int], Arrivals]
    policies: Sequence[str] = POLICIES


def scenarios(rate: float, batch_cap: int) -> tuple[Scenario, ...]:
    return (
        Scenario("burst", 80, lambda repetition: Burst()),
        Scenario("load", 300, lambda repetition: Poisson(rate, seed=repetition)),
        Scenario("overload", 300, lambda repetition: Poisson(_OVERLOAD * rate, seed=repetition)),
        Scenario("no queue", batch_cap, lambda repetition: Burst(), POLICIES[:2]),
    )


@dataclass(slots=True, frozen=True)
class Comparing:
    """Runs what has not been run yet.

    Args:
        places: of the ranker and of all that is kept.
        url: of the LLM.
        batch_cap: the LLM's; as many requests are in flight.
    """

    places: Places
    url: str
    batch_cap: int

    def workload(self) -> list[WorkloadRecord]:
        """The held-out prompts with the lengths of their greedy answers."""
        path = self.places.comparison / "answers.jsonl"
        prompts = [WorkloadRecord(record.id, record.prompt) for record in held_out(self.places)]
        if not path.exists():
            run = self._run("fcfs", prompts, Burst(), "answers")
            path.parent.mkdir(parents=True, exist_ok=True)
            write_run(path, run.header, run.results)
        lengths = lengths_of(read_run(path))
        return [replace(record, output_tokens=lengths[record.id]) for record in prompts]

    def run(self, found: Sequence[Scenario], repetitions: int) -> None:
        """All scenarios under their policies, in another order of policies each time.

        The LLM's steps are measured before and after each.

        Raises:
            ServerProcessError: a server of ours did not start, or failed.
            RuntimeError: requests failed.
            subprocess.CalledProcessError: its steps could not be measured.
        """
        workload = self.workload()
        steps = StepTimes(self.url, self.batch_cap)
        for repetition in range(repetitions):
            for scenario in found:
                turn = repetition % len(scenario.policies)
                for policy in (*scenario.policies[turn:], *scenario.policies[:turn]):
                    path = run_path(self.places, scenario, policy, repetition)
                    if not path.exists():
                        sent = workload[: scenario.requests]
                        steps.before(path)
                        run = self._run(policy, sent, scenario.arrivals(repetition), scenario.name)
                        steps.after(path)
                        write_run(path, run.header, run.results)

    def _run(self, policy: str, workload: Sequence[WorkloadRecord], arrivals: Arrivals, name: str) -> Run:
        tell(f"{name}: {len(workload)} requests under {policy}")
        run = asyncio.run(self._send(policy, workload, arrivals, name))
        if failed := [result.outcome for result in run.results if result.outcome != "finished"]:
            raise RuntimeError(f"{name} under {policy}: {len(failed)} requests failed: {sorted(set(failed))}")
        return run

    async def _send(
        self, policy: str, workload: Sequence[WorkloadRecord], arrivals: Arrivals, name: str
    ) -> Run:
        options = LoadOptions(workload_name=name, chat=True, temperature=0.0, max_tokens=LENGTH_CAP)
        with running_server(self._server(policy)) as address:
            async with AsyncSchedulerClient(address) as client:
                return await run_load(client, workload, arrivals, options)

    def _server(self, policy: str) -> Mapping[str, object]:
        return {
            "policy": policy,
            "engine": "openai",
            "engine_url": self.url,
            "engine_model": SERVED_MODEL,
            "max_sequences": self.batch_cap,
            "gather_ms": GATHER_MS,
            "repository": self.places.models,
            "ranker": RANKER,
            "replay": True,
        }


def lengths_of(run: Run) -> dict[str, int]:
    """Output tokens by the workload's ids."""
    return {result.id: result.output_tokens for result in run.results}


def run_path(places: Places, scenario: Scenario, policy: str, repetition: int) -> Path:
    return places.comparison / f"{scenario.name.replace(' ', '-')}-{policy}-{repetition}.jsonl"


@dataclass(slots=True, frozen=True)
class Row:
    """A policy in a scenario, over the repetitions; gains are over FCFS in the same repetition."""

    policy: str
    runs: tuple[RunMetrics, ...]
    gains: tuple[float, ...]
    gains_e2e: tuple[float, ...]
    gains_p99: tuple[float, ...]

    def cells(self) -> list[str]:
        return [
            self.policy,
            *(
                self._mean_and_p99(metric)
                for metric in ("normalised_s_per_token", "e2e_s", "ttft_s", "tpot_s")
            ),
            _range(self.gains),
            _range(self.gains_e2e),
            _range(self.gains_p99),
            _tau([run.kendall_tau for run in self.runs]),
        ]

    def _mean_and_p99(self, metric: str) -> str:
        found: list[Summary] = [getattr(run, metric) for run in self.runs]
        return f"{mean(s.mean for s in found):.3g} / {mean(s.p99 for s in found):.3g}"


HEADINGS = (
    "policy",
    "s/token, mean / p99",
    "E2E s",
    "TTFT s",
    "TPOT s",
    "gain, s/token",
    "gain, E2E",
    "gain, E2E p99",
    "tau",
)


def rows(places: Places, scenario: Scenario, repetitions: int) -> list[Row]:
    """What the runs of a scenario show."""

    def runs(policy: str) -> list[Run]:
        return [read_run(run_path(places, scenario, policy, n)) for n in range(repetitions)]

    fcfs = runs(scenario.policies[0])
    found = []
    for policy in scenario.policies:
        own = runs(policy)
        gains = [compare(before, after) for before, after in zip(fcfs, own, strict=True)]
        found.append(
            Row(
                policy,
                tuple(evaluate(run) for run in own),
                tuple(gain.improvement_ratio_normalised or 0.0 for gain in gains),
                tuple(gain.improvement_ratio or 0.0 for gain in gains),
                tuple(gain.improvement_ratio_p99 or 0.0 for gain in gains),
            )
        )
    return found


def table(found: Sequence[Row]) -> str:
    lines = [HEADINGS, ["---", *["---:"] * (len(HEADINGS) - 1)], *(row.cells() for row in found)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _range(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{mean(values):.2f}" + (f" ({low:.2f}-{high:.2f})" if high - low >= 0.005 else "")


def _tau(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{mean(known):.2f}" if known else "-"
