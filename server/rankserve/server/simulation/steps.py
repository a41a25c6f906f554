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
from rankserve.server.simulation.waiting import level_after, level_ends_at


@compiled
def hold_blocks(books: Books, options: Options) -> bool:
    """Gives each decoding request the KV block that its next token needs, in order of admission.

    Evicts victims where there is none left; returns whether it did not have to.
    """
    state, batch = books.state[0], books.batch
    tokens, capacity = batch.tokens, batch.capacity
    missing = 0
    for at in range(state.running):
        # A request that prefills holds its whole prefix.
        missing += tokens[at] > capacity[at]
    if missing == 0:
        return True
    if missing <= state.free_blocks:
        take(books, options, missing)
        for at in range(state.running):
            if tokens[at] > capacity[at]:
                capacity[at] += options.block_size
        return True
    _evict_for_blocks(books, options)
    return False


@compiled
def _evict_for_blocks(books: Books, options: Options) -> None:
    state, batch = books.state[0], books.batch
    at = 0
    while at < state.running:
        if batch.tokens[at] <= batch.capacity[at]:
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


@compiled
def one_step(books: Books, options: Options, times: StepTimes) -> None:
    """Packs and executes one step."""
    state, batch = books.state[0], books.batch
    tokens, left, to_prefill, gap_s = batch.tokens, batch.left, batch.to_prefill, batch.gap_s
    decoding = state.running - state.prefilling
    context = state.context
    tokens_left = options.max_batched_tokens - decoding
    first_prefilling = _first_prefilling(books)
    prefill_tokens, prefill_history, prefill_squares, completed = 0, 0, 0, 0
    for at in range(first_prefilling, state.running):
        if to_prefill[at] > 0:
            chunk = min(to_prefill[at], tokens_left)
            tokens_left -= chunk
            prefill_tokens += chunk
            prefill_history += chunk * (tokens[at] - to_prefill[at])
            prefill_squares += chunk * chunk
            completed += chunk == to_prefill[at]
    longest = 0
    if times.straggler_ms > 0:
        for at in range(state.running):
            # The KV of the last token is written by this step.
            longest = max(longest, tokens[at] - 1 if to_prefill[at] == 0 else 0)
    duration_ms = state.swap_ms + step_ms(
        times,
        prefill_tokens,
        prefill_history,
        prefill_squares,
        decoding,
        context,
        longest,
        decoding + completed,
    )
    state.swap_ms = 0.0
    _advance(books, options, duration_ms, 1, options.kv_blocks - state.free_blocks)
    duration_s = duration_ms / 1000
    finished = 0
    for at in range(first_prefilling):
        tokens[at] += 1
        left[at] -= 1
        gap_s[at] = max(gap_s[at], duration_s)
        finished += left[at] == 0
    for at in range(first_prefilling, state.running):
        decodes = to_prefill[at] == 0
        tokens[at] += decodes
        left[at] -= decodes
        gap_s[at] = max(gap_s[at], duration_s * decodes)
        finished += left[at] == 0
    state.context += decoding
    if options.fair_share:
        _charge(books, options, 1)
    if options.follows_fcfs:
        books.bound[0].work += decoding
    if state.resuming > 0:
        _resume(books)
    tokens_left = options.max_batched_tokens - decoding
    for at in range(first_prefilling, state.running):
        if to_prefill[at] > 0:
            chunk = min(to_prefill[at], tokens_left)
            tokens_left -= chunk
            to_prefill[at] -= chunk
            state.to_prefill -= chunk
            if to_prefill[at] == 0 and chunk > 0:
                _prefilled(books, options, at)
                finished += left[at] == 0
    _remove_finished(books, options, finished)


@compiled
def _first_prefilling(books: Books) -> int:
    """The place in the batch from which on some requests prefill; the last ones, but for swapped ones."""
    state, to_prefill = books.state[0], books.batch.to_prefill
    at, seen = state.running, 0
    while seen < state.prefilling:
        at -= 1
        seen += to_prefill[at] > 0
    return int(at)


@compiled
def _prefilled(books: Books, options: Options, at: int) -> None:
    """A request's prefill is complete, which gives its next token."""
    state, batch = books.state[0], books.batch
    request = books.requests[batch.item[at]]
    state.prefilling -= 1
    state.context += batch.tokens[at]
    batch.tokens[at] += 1
    batch.left[at] -= 1
    first = request.first_token_s < 0
    if first:
        request.first_token_s = state.now_s
    elif request.resumed:
        _token_after_pause(books, at)
    if options.fair_share:
        books.groups[request.group].counter += options.output_token_weight
    if options.follows_fcfs:
        bound_produced(books, batch.item[at], first, 1)


@compiled
def _resume(books: Books) -> None:
    """Requests that were swapped in got their first token since."""
    for at in range(books.state[0].running):
        if books.batch.to_prefill[at] == 0 and books.requests[books.batch.item[at]].resumed:
            _token_after_pause(books, at)


@compiled
def _token_after_pause(books: Books, at: int) -> None:
    state, request = books.state[0], books.requests[books.batch.item[at]]
    books.batch.gap_s[at] = max(books.batch.gap_s[at], state.now_s - request.last_token_s)
    request.resumed = 0
    state.resuming -= 1


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
    tokens, left, capacity, gap_s = batch.tokens, batch.left, batch.capacity, batch.gap_s
    count = state.running
    context = state.context
    for at in range(count):
        most_steps = min(most_steps, left[at])
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
    longest_s = longest_ms / 1000
    blocks, finished = 0, 0
    for at in range(count):
        missing = tokens[at] + steps - 1 - capacity[at]
        if missing > 0:
            more = (missing + options.block_size - 1) // options.block_size
            capacity[at] += more * options.block_size
            blocks += more
        tokens[at] += steps
        left[at] -= steps
        gap_s[at] = max(gap_s[at], longest_s)
        finished += left[at] == 0
    take(books, options, blocks)
    state.context = context
    if options.fair_share:
        _charge(books, options, steps)
    if options.follows_fcfs:
        books.bound[0].work += count * steps
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
def _charge(books: Books, options: Options, tokens: int) -> None:
    """Charges the tenant of each decoding request."""
    for at in range(books.state[0].running):
        if books.batch.to_prefill[at] == 0:
            group = books.groups[books.requests[books.batch.item[at]].group]
            group.counter += options.output_token_weight * tokens


@compiled
def _remove_finished(books: Books, options: Options, finished: int) -> None:
    if finished == 0:
        return
    state, batch = books.state[0], books.batch
    kept = 0
    for at in range(state.running):
        if batch.left[at] == 0:
            state.context -= batch.tokens[at] - 1
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
