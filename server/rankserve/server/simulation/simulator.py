"""Runs a workload through the compiled simulation."""

import math
from collections.abc import Callable

from rankserve.server.engines.simulated.profile import Profile
from rankserve.server.scheduling.policies import Policy
from rankserve.server.simulation import layout
from rankserve.server.simulation.columns import RequestColumns
from rankserve.server.simulation.kernel import run
from rankserve.server.simulation.layout import Books
from rankserve.server.simulation.outcome import Outcome, Totals
from rankserve.server.simulation.setup import SimulationSettings, check_lengths, make_books, make_options

# Requests between two reports of progress.
_PROGRESS_EVERY = 50_000


def simulate(
    columns: RequestColumns,
    policy: Policy,
    profile: Profile,
    settings: SimulationSettings,
    *,
    timeline: int = 0,
    on_progress: Callable[[int], None] | None = None,
) -> Outcome:
    """Simulates one engine that serves these requests, until all have finished.

    Args:
        columns: the requests.
        policy: their order.
        profile: the engine.
        settings: of the scheduler.
        timeline: for how many moments to note what runs and waits, from the start.
        on_progress: called with how many requests have arrived, every now and then.

    Raises:
        UnsupportedPolicyError: the compiled simulation does not know the policy.
        ValueError: a request does not fit into the engine.
    """
    check_lengths(columns, profile)
    options = make_options(columns, policy, profile, settings)
    books = make_books(columns, policy, options, settings, timeline)
    arrived, total = 0, len(columns)
    while arrived < total:
        why, arrived = run.machine_code(
            books, options, profile.step_times, arrived, arrived + _PROGRESS_EVERY
        )
        if why != layout.DONE:
            raise RuntimeError("a request that fits did not start in an empty engine")
        if on_progress is not None:
            on_progress(arrived)
    return _outcome(columns, books)


def _outcome(columns: RequestColumns, books: Books) -> Outcome:
    state, requests = books.state[0], books.requests
    end_s = float(requests.end_s.max(initial=0.0))
    waited_s = math.fsum(requests.scheduled_s - requests.arrival_s)
    return Outcome(
        columns=columns,
        scheduled_s=requests.scheduled_s,
        first_token_s=requests.first_token_s,
        end_s=requests.end_s,
        max_token_gap_s=requests.max_token_gap_s,
        preemptions=requests.preemptions,
        promoted=requests.promoted > 0,
        totals=Totals(
            steps=int(state.steps),
            busy_s=float(state.busy_s),
            end_s=end_s,
            preemptions=int(state.preemptions),
            promotions=int(state.promotions),
            kv_blocks_mean=float(state.kv_block_seconds / state.busy_s) if state.busy_s else 0.0,
            kv_blocks_max=int(state.most_blocks),
            waiting_mean=waited_s / end_s if end_s else 0.0,
            waiting_max=int(state.most_waiting),
        ),
        timeline=books.timeline[: state.marks],
    )
