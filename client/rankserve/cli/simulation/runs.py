"""Simulations over all cores: every policy on every seed's requests, dealt to every replica."""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from threading import Event
from typing import Any, TypeVar

import numpy as np

from rankserve.cli.simulation.requests import SeededRequests
from rankserve.cli.simulation.results import SimulatedRun, make_run
from rankserve.records.cpu import available_cores
from rankserve.server.compiled import COMPILED
from rankserve.server.engines.simulated.profile import Profile
from rankserve.server.scheduling.policies import Policy
from rankserve.server.simulation.columns import RequestColumns, columns
from rankserve.server.simulation.outcome import Outcome
from rankserve.server.simulation.setup import SimulationSettings, UnsupportedPolicyError, make_options
from rankserve.server.simulation.simulator import simulate
from rankserve.server.simulation.stepwise import simulate_stepwise

T = TypeVar("T")


class StoppedError(RuntimeError):
    """The simulation was told to stop."""


@dataclass(slots=True, frozen=True)
class Simulation:
    """What to simulate with.

    Attributes:
        policies: each gets a run of its own.
        profile: of each engine.
        settings: of each scheduler.
        replicas: engines that the requests are dealt to in turn, each with a queue of its own.
        workload_name: for the record.
        further_settings: for the record, beside those of the scheduler.
    """

    policies: tuple[Policy, ...]
    profile: Profile
    settings: SimulationSettings
    replicas: int = 1
    workload_name: str = ""
    further_settings: Mapping[str, Any] = field(default_factory=dict)

    def is_compiled(self, policy: Policy) -> bool:
        """Whether the compiled simulation is here and knows the policy; else it runs step by step."""
        if not COMPILED:
            return False
        try:
            make_options(_one_request(), policy, self.profile, self.settings)
        except UnsupportedPolicyError:
            return False
        return True

    def warm_up(self) -> None:
        """Loads the compiled simulation; the first time on a machine it is compiled for half a minute."""
        for policy in self.policies:
            if self.is_compiled(policy):
                simulate(_one_request(), policy, self.profile, self.settings)
                return


def run_all(
    simulation: Simulation,
    seeds: Iterable[SeededRequests],
    on_progress: Callable[[int, int], None],
) -> Generator[SimulatedRun, None, None]:
    """Yields the runs of all policies on the first seed's requests, then on the second's.

    The outcomes that wait to be taken are as few as there are cores, so memory does not grow with the number
    of runs. Whoever closes the generator stops what still runs.

    Args:
        simulation: what to simulate with.
        seeds: requests; asked for one when it is their turn.
        on_progress: told the number of a simulation, counted from 0 over seeds, policies and replicas, and
            how many of its requests have arrived. Called from several threads.
    """
    stop = Event()
    coming: deque[tuple[SeededRequests, Policy, int]] = deque()
    started_at = datetime.now(UTC)

    def calls() -> Iterator[Callable[[], tuple[Outcome, float]]]:
        number = 0
        for requests in seeds:
            for policy in simulation.policies:
                engines = min(simulation.replicas, len(requests.columns))
                coming.append((requests, policy, engines))
                for engine in range(engines):
                    part = requests.columns.take(slice(engine, None, engines))
                    yield partial(_simulate, simulation, policy, part, partial(report, number))
                    number += 1

    def report(number: int, arrived: int) -> None:
        if stop.is_set():
            raise StoppedError("the simulation was stopped")
        on_progress(number, arrived)

    cores = available_cores()
    with ThreadPoolExecutor(cores) as executor, closing(in_order(executor, calls(), ahead=cores)) as outcomes:
        try:
            for first in outcomes:
                requests, policy, engines = coming.popleft()
                parts = [first, *islice(outcomes, engines - 1)]
                yield make_run(
                    policy.name,
                    requests,
                    [outcome for outcome, _ in parts],
                    simulation.profile,
                    simulation.settings,
                    workload_name=simulation.workload_name,
                    further_settings=simulation.further_settings,
                    started_at=started_at,
                    wall_s=sum(seconds for _, seconds in parts),
                )
        finally:
            stop.set()


def in_order(
    executor: ThreadPoolExecutor, calls: Iterable[Callable[[], T]], *, ahead: int
) -> Generator[T, None, None]:
    """Results in the order of the calls, of which at most `ahead` are begun before they are asked for."""
    begun: deque[Future[T]] = deque()
    try:
        for call in calls:
            begun.append(executor.submit(call))
            if len(begun) > ahead:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        for future in begun:
            future.cancel()


def _simulate(
    simulation: Simulation, policy: Policy, part: RequestColumns, report: Callable[[int], None]
) -> tuple[Outcome, float]:
    """The outcome, and the wall-clock seconds it took."""
    run = simulate if simulation.is_compiled(policy) else simulate_stepwise
    start_s = time.perf_counter()
    outcome = run(part, policy, simulation.profile, simulation.settings, on_progress=report)
    return outcome, time.perf_counter() - start_s


def _one_request() -> RequestColumns:
    return columns(np.zeros(1), np.ones(1, np.int64), np.ones(1, np.int64))
