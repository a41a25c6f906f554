"""Virtual time, step by step: the real scheduler and the real simulated batch, without a clock.

The compiled simulation does the same from event to event; this one knows every policy, and is what the
compiled one is checked against.
"""

import math
from collections.abc import Callable

import numpy as np

from rankserve.server.engines.simulated.batch import SimulatedBatch
from rankserve.server.engines.simulated.profile import Profile
from rankserve.server.scheduling.policies import Policy
from rankserve.server.scheduling.preemption import Preemption
from rankserve.server.scheduling.request import Request
from rankserve.server.scheduling.reservation import KvReservation
from rankserve.server.scheduling.scheduler import Scheduler, SchedulerSettings
from rankserve.server.simulation.columns import Numbers, RequestColumns
from rankserve.server.simulation.outcome import Outcome, Totals
from rankserve.server.simulation.setup import SimulationSettings, check_lengths
from rankserve.server.simulation.virtual_server import VirtualServer

# Requests between two reports of progress.
_PROGRESS_EVERY = 1_000


def simulate_stepwise(
    columns: RequestColumns,
    policy: Policy,
    profile: Profile,
    settings: SimulationSettings,
    *,
    timeline: int = 0,
    on_progress: Callable[[int], None] | None = None,
) -> Outcome:
    """What `simulator.simulate` does, step by step: for any policy, and some hundred times slower.

    Raises:
        ValueError: a request does not fit into the engine.
    """
    check_lengths(columns, profile)
    swaps = settings.preemption == "swap"
    scheduler = Scheduler(
        policy,
        SchedulerSettings(
            starvation=settings.starvation,
            fair_share=settings.fair_share,
            preemption=Preemption(
                enabled=settings.preemption != "off",
                margin=settings.preemption_margin,
                restart_steps_per_token=profile.restart_steps_per_token(swaps=swaps),
            ),
            kv_reservation=KvReservation(settings.kv_reservation),
        ),
    )
    server = VirtualServer(
        scheduler, SimulatedBatch(profile, swaps=swaps), gather_s=settings.gather_s, timeline=timeline
    )
    requests = [_request(columns, index) for index in range(len(columns))]

    def on_arrival(arrived: int) -> None:
        if on_progress is not None and arrived % _PROGRESS_EVERY == 0:
            on_progress(arrived)

    server.run(requests, on_arrival)
    return _outcome(columns, requests, server)


def _request(columns: RequestColumns, index: int) -> Request:
    deadline_s = float(columns.deadline_or_inf_s[index])
    return Request(
        id=str(index),
        arrival_s=float(columns.arrival_s[index]),
        prompt_tokens=int(columns.prompt_tokens[index]),
        max_tokens=int(columns.max_tokens[index]),
        priority=int(columns.priority[index]),
        tenant=str(columns.tenant[index]),
        deadline_s=deadline_s if math.isfinite(deadline_s) else None,
        score=float(columns.score[index]),
        expected_tokens=float(columns.expected_tokens[index]),
        expected_tokens_p90=float(columns.expected_tokens_p90[index]),
        replay_output_tokens=int(columns.true_output_tokens[index]),
    )


def _outcome(columns: RequestColumns, requests: list[Request], server: VirtualServer) -> Outcome:
    def times(name: str) -> Numbers:
        return np.array([getattr(server.timings[request.id], name) for request in requests], np.float64)

    scheduled_s, end_s = times("scheduled_s"), times("end_s")
    last_s = float(end_s.max(initial=0.0))
    busy_s = server.busy_s
    return Outcome(
        columns=columns,
        scheduled_s=scheduled_s,
        first_token_s=times("first_token_s"),
        end_s=end_s,
        max_token_gap_s=times("max_token_gap_s"),
        preemptions=np.array([request.preemptions for request in requests], np.int64),
        promoted=np.array([request.promotions > 0 for request in requests], np.bool_),
        totals=Totals(
            steps=server.scheduler.steps,
            busy_s=busy_s,
            end_s=last_s,
            preemptions=server.scheduler.preemptions_total,
            promotions=server.scheduler.promotions_total,
            kv_blocks_mean=server.kv_block_seconds / busy_s if busy_s else 0.0,
            kv_blocks_max=server.kv_blocks_max,
            waiting_mean=math.fsum(scheduled_s - columns.arrival_s) / last_s if last_s else 0.0,
            waiting_max=server.waiting_max,
        ),
        timeline=np.array(server.timeline, np.float64).reshape(-1, 4),
    )
