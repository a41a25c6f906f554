"""The batch of a compiled run: one step, or all steps until something changes.

`rankserve.server.engines.simulated.batch` does the same one step at a time.
"""

import math

from rankserve.server.compiled import compiled
from rankserve.server.engines.simulated.step_time import StepTimes, decode_line, step_ms
from rankserve.server.simulation.admission import evict, generated_by, move, release, worst_running
from rankserve.server.simulation.bound import bound_finished, bound_produced
from rankserve.server.simulation.kv import take
from rankserve.server.simulation.layout import LEVEL_KEY, Books, Options
from rankserve.server.simulation.waiting import OUTPUT_TOKEN_COST, level_after, level_ends_at


@compiled
def hold_blocks(books: Books, options: Options) -> bool:
    """Gives each decoding request the KV block that its next token needs, in order of admission.

    Evicts victims where there is none left; returns whether it did not have to.
    """
    state, batch = books.state[0], books.batch
    evictions = state.preemptions
    at = 0
    while at < state.running:
        if batch.to_prefill[at] > 0 or batch.tokens[at] <= batch.capacity[at]:
            at += 1
        elif state.free_blocks > 0:
            take(books, options, 1)
            batch.capacity[at] += options.block_size
            at += 1
        else:
            victim = worst_running(books, options, state.running)
            evict(books, options, victim)
            if victim < at:
                at -= 1
    return bool(state.preemptions == evictions)


@compiled
def one_step(books: Books, options: Options, times: StepTimes) -> None:
    """Packs and executes one step."""
    state, batch = books.state[0], books.batch
    decoding = state.running - state.prefilling
    most_prefill = options.max_batched_tokens - decoding
    tokens_left = most_prefill
    prefill_tokens, prefill_history, completed = 0, 0, 0
    decode_context, longest = 0, 0
    for at in range(state.running):
        if batch.to_prefill[at] == 0:
            # The KV of the last token is written by this step.
            decode_context += batch.tokens[at] - 1
            longest = max(longest, batch.tokens[at] - 1)
        elif tokens_left > 0:
            chunk = min(batch.to_prefill[at], tokens_left)
            tokens_left -= chunk
            prefill_tokens += chunk
            prefill_history += chunk * (batch.tokens[at] - batch.to_prefill[at])
            completed += chunk == batch.to_prefill[at]
    duration_ms = state.swap_ms + step_ms(
        times,
        prefill_tokens,
        prefill_history,
        decoding,
        decode_context,
        longest,
        decoding + completed,
    )
    state.swap_ms = 0.0
    _advance(books, options, duration_ms, 1, options.kv_blocks - state.free_blocks)
    finished = 0
    tokens_left = most_prefill
    for at in range(state.running):
        if batch.to_prefill[at] > 0:
            chunk = min(batch.to_prefill[at], tokens_left)
            tokens_left -= chunk
            batch.to_prefill[at] -= chunk
            state.to_prefill -= chunk
            if chunk == 0 or batch.to_prefill[at] > 0:
                continue
            state.prefilling -= 1
        else:
            batch.gap_s[at] = max(batch.gap_s[at], duration_ms / 1000)
        batch.tokens[at] += 1
        batch.left[at] -= 1
        finished += batch.left[at] == 0
        if options.fair_share:
            _charge(books, at, 1)
        if options.follows_fcfs:
            bound_produced(books, batch.item[at], generated_by(books, at) == 1, 1)
        if state.resuming > 0 or generated_by(books, at) == 1:
            _first_token(books, at)
    _remove_finished(books, options, finished)


@compiled
def _first_token(books: Books, at: int) -> None:
    """The first token of a request, or its first since it was restarted."""
    state, request = books.state[0], books.requests[books.batch.item[at]]
    if request.resumed:
        books.batch.gap_s[at] = max(books.batch.gap_s[at], state.now_s - request.last_token_s)
        request.resumed = 0
        state.resuming -= 1
    elif request.first_token_s < 0:
        request.first_token_s = state.now_s


@compiled
def can_jump(books: Books) -> bool:
    """Whether the batch only decodes, each of its requests having produced a token in the last step."""
    state = books.state[0]
    return bool(state.prefilling == 0 and state.resuming == 0 and state.swap_ms == 0)


@compiled
def jump(books: Books, options: Options, times: StepTimes, most_steps: int, until_s: float) -> None:
    """Executes up to `most_steps` steps of a batch that only decodes, the last being the first to end at
    `until_s` or later. Stops sooner where a request finishes or KV blocks would run out.
    """
    state, batch = books.state[0], books.batch
    count = state.running
    context = 0
    for at in range(count):
        context += batch.tokens[at] - 1
        most_steps = min(most_steps, batch.left[at])
    most_steps = _steps_with_blocks(books, options, most_steps)
    steps = 0
    elapsed_ms, longest_ms = 0.0, 0.0
    until_ms = (until_s - state.now_s) * 1000
    while steps < most_steps and (steps == 0 or elapsed_ms < until_ms):
        intercept, slope, last_context = decode_line(times, count, context)
        first_ms = intercept + slope * context
        growth = slope * count
        here = most_steps - steps
        if last_context < context + count * (here - 1):
            here = max(1, int((last_context - context) // count) + 1)
        if elapsed_ms + _sum(first_ms, growth, here) >= until_ms:
            here = _steps_until(first_ms, growth, here, until_ms - elapsed_ms)
        elapsed_ms += _sum(first_ms, growth, here)
        longest_ms = max(longest_ms, first_ms, first_ms + growth * (here - 1))
        steps += here
        context += count * here
    used_before = options.kv_blocks - state.free_blocks
    finished = 0
    for at in range(count):
        missing = batch.tokens[at] + steps - 1 - batch.capacity[at]
        if missing > 0:
            blocks = (missing + options.block_size - 1) // options.block_size
            batch.capacity[at] += blocks * options.block_size
            take(books, options, blocks)
        batch.tokens[at] += steps
        batch.left[at] -= steps
        batch.gap_s[at] = max(batch.gap_s[at], longest_ms / 1000)
        finished += batch.left[at] == 0
        if options.fair_share:
            _charge(books, at, steps)
        if options.follows_fcfs:
            bound_produced(books, batch.item[at], False, steps)
    state.jumps += 1
    _advance(books, options, elapsed_ms, steps, used_before)
    _remove_finished(books, options, finished)


@compiled
def _advance(books: Books, options: Options, elapsed_ms: float, steps: int, used_before: int) -> None:
    """Lets the time of these steps pass, for the clock and for whatever counts time, steps or tokens."""
    state, batch = books.state[0], books.batch
    used = options.kv_blocks - state.free_blocks
    state.now_s += elapsed_ms / 1000
    state.busy_s += elapsed_ms / 1000
    state.kv_block_seconds += (used_before + used) / 2 * (elapsed_ms / 1000)
    state.most_blocks = max(state.most_blocks, used)
    state.steps += steps
    if state.protected > 0:
        for at in range(state.running):
            request = books.requests[batch.item[at]]
            if request.quantum_left > 0:
                request.quantum_left = max(0, request.quantum_left - steps)
                state.protected -= request.quantum_left == 0


@compiled
def _charge(books: Books, at: int, tokens: int) -> None:
    group = books.groups[books.requests[books.batch.item[at]].group]
    group.counter += OUTPUT_TOKEN_COST * tokens


@compiled
def _remove_finished(books: Books, options: Options, finished: int) -> None:
    if finished == 0:
        return
    state, batch = books.state[0], books.batch
    kept = 0
    for at in range(state.running):
        if batch.left[at] == 0:
            release(books, options, at)
            if options.follows_fcfs:
                bound_finished(books, batch.item[at])
            books.requests[batch.item[at]].end_s = state.now_s
        else:
            if kept < at:
                move(books, at, kept)
            kept += 1
    state.running = kept


@compiled
def _sum(first: float, growth: float, count: int) -> float:
    """Of `count` terms that grow by `growth`."""
    return first * count + growth * (count * (count - 1) / 2)


@compiled
def _steps_until(first: float, growth: float, most: int, total: float) -> int:
    """The fewest terms, at most `most`, whose sum reaches `total`."""
    low, high = 1, most
    while low < high:
        middle = (low + high) // 2
        if _sum(first, growth, middle) >= total:
            high = middle
        else:
            low = middle + 1
    return low


@compiled
def _steps_with_blocks(books: Books, options: Options, most: int) -> int:
    """How many of these steps the free KV blocks suffice for."""
    state = books.state[0]
    # Each request needs at most one block at once and one more for each `block_size` steps.
    if state.running * (1 + most // options.block_size) <= state.free_blocks:
        return most
    low, high = 1, most
    while low < high:
        middle = (low + high + 1) // 2
        if _blocks_missing(books, options, middle) <= state.free_blocks:
            low = middle
        else:
            high = middle - 1
    return low


@compiled
def _blocks_missing(books: Books, options: Options, steps: int) -> int:
    """KV blocks that the batch needs for this many steps beyond those that it holds."""
    batch = books.batch
    blocks = 0
    for at in range(books.state[0].running):
        missing = batch.tokens[at] + steps - 1 - batch.capacity[at]
        if missing > 0:
            blocks += (missing + options.block_size - 1) // options.block_size
    return blocks


@compiled
def steps_to_demotion(books: Books, options: Options) -> float:
    """Steps until a running request changes its MLFQ level; inf for other policies."""
    fewest = math.inf
    if options.key_kind == LEVEL_KEY:
        for at in range(books.state[0].running):
            joined = int(books.requests[books.batch.item[at]].key)
            generated = generated_by(books, at)
            level = level_after(joined, generated, options.first_quantum, options.levels)
            if level < options.levels - 1:
                fewest = min(fewest, level_ends_at(joined, level, options.first_quantum) - generated)
    return fewest


@compiled
def steps_to_unprotected(books: Books) -> float:
    """Steps until a running request loses the protection of its promotion."""
    fewest = math.inf
    if books.state[0].protected > 0:
        for at in range(books.state[0].running):
            left = books.requests[books.batch.item[at]].quantum_left
            if left > 0:
                fewest = min(fewest, left)
    return fewest
