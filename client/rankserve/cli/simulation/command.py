"""From the options of `rankserve simulate` to figures."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from rankserve.cli.arrival_options import drawn_arrivals
from rankserve.cli.simulation.figures import RunFigures
from rankserve.cli.simulation.requests import SeededRequests, draw_requests
from rankserve.cli.simulation.results import SimulatedRun
from rankserve.cli.simulation.runs import Simulation, run_all
from rankserve.cli.simulation.scores import Scores, degraded, ranker_scores
from rankserve.cli.simulation.trace import is_trace, read_trace
from rankserve.cli.simulation.workload import SimulationWorkload, from_records, repeat_to
from rankserve.cli.synthetic import synthetic_workload
from rankserve.client.evaluation import ColumnarRun, compare, evaluate
from rankserve.client.evaluation.content import BASELINE_POLICY
from rankserve.client.load import Recorded
from rankserve.progress import Stage, stage
from rankserve.records.workload import read_workload
from rankserve.server.compiled import COMPILED
from rankserve.server.engines.contract import EngineSettings
from rankserve.server.engines.simulated.engine import DEFAULT_PROFILE, SimulatedEngine
from rankserve.server.engines.simulated.profile import Profile
from rankserve.server.engines.simulated.profiles import find_profile
from rankserve.server.scheduling.fair_share import FairShare
from rankserve.server.scheduling.policies import (
    AgedRanking,
    EarliestDeadlineFirst,
    Fcfs,
    Policy,
    ShortestJobFirst,
    ShortestRemainingTimeFirst,
    SkipJoinMlfq,
    make_policy,
)
from rankserve.server.scheduling.starvation import StarvationSettings
from rankserve.server.settings import ServerSettings
from rankserve.server.simulation.setup import SimulationSettings

# Built-in policies that no ranker has a part in.
_WITHOUT_SCORES = (
    Fcfs,
    EarliestDeadlineFirst,
    SkipJoinMlfq,
    ShortestJobFirst,
    ShortestRemainingTimeFirst,
)


class UsageError(ValueError):
    """Options that contradict each other, or this workload."""


@dataclass(slots=True, frozen=True, kw_only=True)
class SimulateOptions:
    """The options of the command, see its help. An empty list of policies stands for the default ones."""

    workload: Path | None = None
    synthetic: int | None = None
    requests: int | None = None
    repeat_to: int | None = None
    model: str | None = None
    rate: float | None = None
    burst: bool = False
    gamma_cv: float | None = None
    on_off: str | None = None
    speed: float = 1.0
    seed: int = 0
    seeds: int = 1
    policy: list[str] = field(default_factory=list)
    ageing_tokens_per_s: float = 10.0
    max_wait_ms: int | None = None
    starvation_threshold_steps: int = 0
    starvation_quantum_steps: int = 10
    fair_share: bool = True
    preemption: str = "off"
    preemption_margin: float = 1.0
    kv_reservation: str = "none"
    gather_ms: float = 0.0
    profile: str = ""
    replicas: int = 1
    max_sequences: int | None = None
    max_batched_tokens: int | None = None
    kv_blocks: int | None = None
    repository: Path | None = None
    ranker: str | None = None
    ranker_version: int | None = None
    ranker_threads: int = 1
    score_tau: float | None = None
    output: Path | None = None
    format: str = "parquet"


@dataclass(slots=True, frozen=True)
class Figures:
    """What was simulated and what came of it.

    Attributes:
        simulation: with what.
        runs: in the order of the policies, for one seed after the other.
        requests: of each run.
        wall_s: how long all runs took together, with their evaluation and their files.
    """

    simulation: Simulation
    runs: tuple[RunFigures, ...]
    requests: int
    wall_s: float


def run_command(options: SimulateOptions, say: Callable[[str], None]) -> Figures:
    """Does all that the command does but for printing the figures.

    Args:
        options: of the command.
        say: told what a user should know of.

    Raises:
        UsageError, ValueError: options that cannot be; RecordError and RankerVersionError are ValueErrors.
        OSError: a file cannot be read or written.
    """
    with stage("reading the workload"):
        workload, name = _workload(options)
    profile = _profile(options)
    names = options.policy or list(dict.fromkeys(("fcfs", _server_default(), "sjf")))
    scored = bool(len(workload.prompts)) or options.score_tau is not None
    if not options.policy and not scored:
        dropped = [policy for policy in names if _needs_scores(make_policy(policy))]
        names = [policy for policy in names if policy not in dropped]
        say(f"a trace has no prompts to score, so without {', '.join(dropped)}: --score-tau 0.5 adds scores")
    policies = tuple(_policy(policy, options) for policy in names)
    _check(options, workload, policies, scored)
    scores = _ranker_scores(options, workload, policies)
    if scores is not None and scores.expected_tokens is None:
        _check_calibration(options, policies, scores)
    simulation = Simulation(
        policies, profile, _settings(options), options.replicas, name, _further_settings(options)
    )
    _announce(simulation, say)
    return _run(options, simulation, workload, scores, say)


def _workload(options: SimulateOptions) -> tuple[SimulationWorkload, str]:
    path, limit = options.workload, options.requests
    if (path is None) == (options.synthetic is None):
        raise UsageError("say either --workload FILE or --synthetic N")
    count_tokens = SimulatedEngine(EngineSettings()).count_tokens
    if path is None:
        count = min(options.synthetic or 0, limit or options.synthetic or 0)
        records, name = synthetic_workload(count, options.seed)
        workload = from_records(records, Path(name), count_tokens)
    elif is_trace(path):
        name, workload = path.name, read_trace(path, limit)
    else:
        name = path.name
        workload = from_records(read_workload(path, model=options.model, limit=limit), path, count_tokens)
    if options.repeat_to is None or options.repeat_to == len(workload):
        return workload, name
    if options.repeat_to < len(workload):
        raise UsageError(
            f"--repeat-to {options.repeat_to} is less than the workload's {len(workload)} requests;"
            f" --requests {options.repeat_to} takes the first of them"
        )
    return repeat_to(workload, options.repeat_to), f"{name}, repeated to {options.repeat_to} requests"


def _profile(options: SimulateOptions) -> Profile:
    """The profile with what the options change of it, as `rankserve serve` does."""
    profile = find_profile(options.profile or DEFAULT_PROFILE)
    names = ("max_sequences", "max_batched_tokens", "kv_blocks")
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    if "kv_blocks" in given:
        given["max_model_len"] = min(profile.max_model_len, given["kv_blocks"] * profile.block_size)
    return replace(profile, **given)


def _server_default() -> str:
    default: str = ServerSettings.model_fields["policy"].default
    return default


def _policy(name: str, options: SimulateOptions) -> Policy:
    return AgedRanking(options.ageing_tokens_per_s) if name == AgedRanking.name else make_policy(name)


def _settings(options: SimulateOptions) -> SimulationSettings:
    return SimulationSettings(
        starvation=StarvationSettings(
            threshold_steps=options.starvation_threshold_steps,
            quantum_steps=options.starvation_quantum_steps,
            max_wait_s=options.max_wait_ms / 1000 if options.max_wait_ms else None,
        ),
        fair_share=FairShare(enabled=options.fair_share),
        preemption=options.preemption,
        preemption_margin=options.preemption_margin,
        kv_reservation=options.kv_reservation,
        gather_s=options.gather_ms / 1000,
    )


def _further_settings(options: SimulateOptions) -> dict[str, float]:
    further = {} if options.score_tau is None else {"score_tau": options.score_tau}
    if AgedRanking.name in options.policy:
        further["ageing_tokens_per_s"] = options.ageing_tokens_per_s
    return further


def _needs_scores(policy: Policy) -> bool:
    return not isinstance(policy, _WITHOUT_SCORES)


def _check(
    options: SimulateOptions, workload: SimulationWorkload, policies: tuple[Policy, ...], scored: bool
) -> None:
    """Raises UsageError for what would run, but not mean what was meant."""
    if len({policy.name for policy in policies}) < len(policies):
        raise UsageError("the same --policy is given twice")
    without = [policy.name for policy in policies if _needs_scores(policy)]
    if options.kv_reservation == "predicted":
        without.append("--kv-reservation predicted")
    if without and not scored:
        raise UsageError(
            f"{', '.join(without)} needs scores, and a trace has no prompts to score: say --score-tau 0.5 for"
            " its lengths made worse until Kendall's tau is 0.5, about what a ranker reaches"
        )
    drawn = options.rate is not None or options.on_off is not None
    if options.seeds > 1 and not drawn and options.score_tau in (None, 1, -1):
        raise UsageError(
            f"--seeds {options.seeds} would give {options.seeds} times the same: nothing is drawn."
            " Draw the arrivals with --rate or --on-off, or the scores with --score-tau"
        )


def _ranker_scores(
    options: SimulateOptions,
    workload: SimulationWorkload,
    policies: tuple[Policy, ...],
) -> Scores | None:
    """Those of a ranker, if a policy wants them."""
    wanted = options.kv_reservation == "predicted" or any(map(_needs_scores, policies))
    if options.score_tau is not None or not wanted:
        return None
    return ranker_scores(
        workload.prompts,
        repository=options.repository,
        name=options.ranker,
        version=options.ranker_version,
        threads=options.ranker_threads,
    )


def _check_calibration(options: SimulateOptions, policies: tuple[Policy, ...], scores: Scores) -> None:
    preempts = options.preemption != "off"
    needing = [
        policy.name
        for policy in policies
        if policy.needs_expected_tokens or (preempts and policy.preempts_by_expected_tokens)
    ]
    if options.kv_reservation == "predicted":
        needing.append("--kv-reservation predicted")
    if needing:
        raise UsageError(
            f"{', '.join(needing)} needs expected lengths, but {scores.ranker_version} has no calibration;"
            " export a version with validation data, or choose policy ranking"
        )


def _announce(simulation: Simulation, say: Callable[[str], None]) -> None:
    stepwise = [policy.name for policy in simulation.policies if not simulation.is_compiled(policy)]
    if not COMPILED:
        say(
            "numba is not installed, so this runs step by step, some hundred times slower:"
            " pip install 'rankserve[simulate]'"
        )
    elif stepwise:
        say(f"{', '.join(stepwise)}: not known to the compiled simulation, runs step by step, slower")
    if simulation.settings.preemption == "swap" and simulation.profile.swap_ms_per_token == 0:
        say(
            f"profile {simulation.profile.name} states no swap_ms_per_token, so swapping costs nothing here:"
            " add it to the file, or give `rankserve profile add` --swap-ms-per-token"
        )
    if len(stepwise) < len(simulation.policies):
        with stage("loading the compiled simulation (half a minute the first time)"):
            simulation.warm_up()


def _run(
    options: SimulateOptions,
    simulation: Simulation,
    workload: SimulationWorkload,
    scores: Scores | None,
    say: Callable[[str], None],
) -> Figures:
    """Simulates, evaluates and writes, one run after the other."""
    told: set[str] = set()

    def seeded() -> Iterator[SeededRequests]:
        for seed in range(options.seed, options.seed + options.seeds):
            drawn = drawn_arrivals(
                rate=options.rate,
                burst=options.burst,
                gamma_cv=options.gamma_cv,
                on_off=options.on_off,
                seed=seed,
            )
            of_seed = scores
            if options.score_tau is not None:
                of_seed = degraded(workload.output_tokens, options.score_tau, seed)
            requests = draw_requests(
                workload, drawn or Recorded(options.speed), of_seed, simulation.profile, seed
            )
            for note in (*_refused(requests, simulation.profile), *(of_seed.notes if of_seed else ())):
                if note not in told:
                    told.add(note)
                    say(note)
            yield requests

    start_s = time.perf_counter()
    total = len(workload) * len(simulation.policies) * options.seeds
    runs = []
    baseline: ColumnarRun | None = None
    # The baseline first, so that of each seed only its run is kept for the others.
    ordered = sorted(simulation.policies, key=lambda policy: policy.name != BASELINE_POLICY)
    in_order = replace(simulation, policies=tuple(ordered))
    with (
        stage("simulating", total, "requests") as simulating,
        closing(run_all(in_order, seeded(), counting(simulating))) as simulated,
    ):
        for run in simulated:
            columns = run.as_columns()
            is_baseline = run.header.policy == BASELINE_POLICY
            if is_baseline:
                baseline = columns
            runs.append(
                RunFigures(
                    header=run.header,
                    metrics=evaluate(columns),
                    comparison=None if is_baseline or baseline is None else compare(baseline, columns),
                    wall_s=run.wall_s,
                    file=_write(options, run),
                )
            )
    place = {policy.name: index for index, policy in enumerate(simulation.policies)}
    runs.sort(key=lambda run: (run.header.seed, place[run.header.policy]))
    return Figures(simulation, tuple(runs), len(workload), time.perf_counter() - start_s)


def counting(simulating: Stage) -> Callable[[int, int], None]:
    """To be told how many of its requests each simulation has come to, in a thread of its own."""
    arrived: dict[int, int] = {}

    def report(simulation: int, count: int) -> None:
        before = arrived.get(simulation, 0)
        arrived[simulation] = count
        simulating.advance(count - before)

    return report


def _refused(requests: SeededRequests, profile: Profile) -> list[str]:
    count = len(requests) - len(requests.columns)
    if not count:
        return []
    return [
        f"{count} of {len(requests)} requests are longer than the {profile.max_model_len} tokens of"
        f" {profile.name}'s max_model_len: refused, as a server would"
    ]


def _write(options: SimulateOptions, run: SimulatedRun) -> Path | None:
    if options.output is None:
        return None
    path = options.output / f"{run.header.policy}-seed{run.seed}.{options.format}"
    run.write(path)
    return path
