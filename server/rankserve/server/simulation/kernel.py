"""The compiled simulation: the same decisions as `simulation.stepwise`, from event to event.

Between an arrival, a completion, a promotion and the exhaustion of the KV cache a batch that only decodes
does not change: its steps are summed instead of executed. Equal timestamps are a property test.
"""

import math

from rankserve.server.compiled import compiled
from rankserve.server.engines.simulated.step_time import StepTimes
from rankserve.server.simulation.admission import plan
from rankserve.server.simulation.layout import DONE, RESPONSE_RATIO, TOO_LARGE, Books, Options
from rankserve.server.simulation.steps import (
    can_jump,
    hold_blocks,
    jump,
    one_step,
    steps_to_demotion,
    steps_to_unprotected,
)
from rankserve.server.simulation.waiting import enqueue, first_band, next_due

_ANY_NUMBER = 1 << 40


@compiled
def run(books: Books, options: Options, times: StepTimes, first: int, until: int) -> tuple[int, int]:
    """Simulates until `until` requests have arrived and all of them finished, or some requests more.

    Returns why it stopped, and how many requests have arrived: call again from there to go on, so that a
    caller can show progress.
    """
    state, requests = books.state[0], books.requests
    total = len(requests)
    arrived = first
    while arrived < total or state.waiting > 0 or state.running > 0:
        if arrived >= until and arrived < total:
            break
        while arrived < total and requests[arrived].arrival_s <= state.now_s:
            if state.waiting == 0:
                state.gather_until_s = requests[arrived].arrival_s + options.gather_s
            enqueue(books, options, arrived, requests[arrived].arrival_s)
            arrived += 1
        state.most_waiting = max(state.most_waiting, state.waiting)
        next_arrival_s = requests[arrived].arrival_s if arrived < total else math.inf
        gathers = state.waiting > 0 and state.now_s < state.gather_until_s
        if state.running == 0 and (state.waiting == 0 or gathers):
            state.now_s = min(next_arrival_s, state.gather_until_s) if gathers else next_arrival_s
            continue
        undisturbed = hold_blocks(books, options)
        if state.waiting > 0 and undisturbed and not gathers:
            plan(books, options)
            if state.running == 0:
                return TOO_LARGE, arrived
        _mark(books, options)
        if not can_jump(books):
            one_step(books, options, times)
            continue
        most_steps, until_s = _until_plan(books, options, next_arrival_s)
        if not undisturbed:
            most_steps = 1
        jump(books, options, times, most_steps, until_s)
    return DONE, arrived


@compiled
def _until_plan(books: Books, options: Options, next_arrival_s: float) -> tuple[int, float]:
    """When `plan` could decide otherwise than now, if nothing finishes: (steps from now, moment in s)."""
    state = books.state[0]
    full = state.running >= options.max_sequences
    if full and not options.preempts:
        # These look at what has happened so far whenever a request arrives.
        notes_arrival = options.follows_fcfs or options.threshold_steps > 0 or options.fair_share
        return _ANY_NUMBER, next_arrival_s if notes_arrival else math.inf
    if state.waiting == 0:
        return _ANY_NUMBER, next_arrival_s
    if state.now_s < state.gather_until_s:
        return _ANY_NUMBER, min(next_arrival_s, state.gather_until_s)
    if options.key_kind == RESPONSE_RATIO or options.fair_share:
        return 1, next_arrival_s
    moment_s, step = next_due(books, options, first_band(books), state.now_s)
    steps = step - state.steps
    if options.preempts:
        steps = min(steps, steps_to_demotion(books, options), steps_to_unprotected(books))
    return int(min(steps, _ANY_NUMBER)), min(next_arrival_s, moment_s)


@compiled
def _mark(books: Books, options: Options) -> None:
    """Notes what runs and waits now, as long as the timeline has room."""
    state = books.state[0]
    if state.marks < len(books.timeline):
        books.timeline[state.marks, 0] = state.now_s
        books.timeline[state.marks, 1] = state.running
        books.timeline[state.marks, 2] = state.waiting
        books.timeline[state.marks, 3] = options.kv_blocks - state.free_blocks
        state.marks += 1
