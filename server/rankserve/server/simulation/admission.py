"""Who starts before a step, and who is evicted for it: `Scheduler.plan` and `select_victim`, compiled."""

from rankserve.server.compiled import compiled
from rankserve.server.simulation.bound import bound_look, bound_started, may_overtake
from rankserve.server.simulation.kv import blocks_for, give_back, take, take_again
from rankserve.server.simulation.layout import BY_LEVEL, BY_REMAINING, RESERVED, Books, Options
from rankserve.server.simulation.waiting import (
    dequeue,
    due_in_band,
    due_of_tenant,
    enqueue,
    first_band,
    first_by_policy,
    key_now,
)


@compiled
def plan(books: Books, options: Options) -> None:
    """Starts waiting requests while there is room, evicting for them where the policy says so."""
    state, requests = books.state[0], books.requests
    now_s = state.now_s
    if options.follows_fcfs:
        bound_look(books, options, now_s)
    tokens_left = options.max_batched_tokens - state.to_prefill - (state.running - state.prefilling)
    blocks_left = state.free_blocks
    if state.running > 0:
        blocks_left -= options.watermark_blocks
    if options.reservation == RESERVED:
        for at in range(state.running):
            blocks_left -= _outstanding(books, options, at)
    older = state.running
    while True:
        band = first_band(books)
        if band < 0:
            return
        full = state.running >= options.max_sequences
        if (full and not options.preempts) or tokens_left < 1:
            return
        head = first_by_policy(books, options, band, now_s)
        due = due_in_band(books, options, band, now_s)
        may_overtake_due = False
        if due < 0:
            due = due_of_tenant(books, options, band, now_s)
            may_overtake_due = due >= 0 and may_overtake(books, options, head, due)
        promotes = due >= 0 and head != due
        if promotes and not may_overtake_due:
            head = due
        request = requests[head]
        needed = blocks_for(options, request.prompt_tokens + request.generated)
        set_aside = 0
        if options.reservation == RESERVED:
            whole = blocks_for(options, request.prompt_tokens + request.reserve_tokens)
            set_aside = max(0, whole - needed)
            # Whatever its reservation, a request may have an engine to itself.
            if state.running > 0:
                needed += set_aside
                set_aside = 0
        if full or needed > blocks_left:
            if not options.preempts or older == 0:
                return
            at = worst_running(books, options, older)
            released = _held(books, options, at)
            if options.reservation == RESERVED:
                released += _outstanding(books, options, at)
            if needed > blocks_left + released or not _may_evict(books, options, at, head, head == due):
                return
            blocks_left += released
            if books.batch.to_prefill[at] == 0:
                tokens_left += 1
            evict(books, options, at)
            older -= 1
            promotes = promotes or head == due
        tokens_left -= _start(books, options, head, due, promotes, tokens_left)
        blocks_left -= needed + set_aside


@compiled
def _outstanding(books: Books, options: Options, at: int) -> int:
    """KV blocks reserved for a running request beyond those that it holds."""
    request = books.requests[books.batch.item[at]]
    reserved = blocks_for(options, request.prompt_tokens + request.reserve_tokens)
    return max(0, reserved - _held(books, options, at))


@compiled
def _held(books: Books, options: Options, at: int) -> int:
    """KV blocks that a running request holds for itself."""
    return int(books.batch.capacity[at] // options.block_size - options.shared_blocks)


@compiled
def _start(books: Books, options: Options, item: int, due: int, promotes: bool, tokens_left: int) -> int:
    """Moves a waiting request into the batch; returns the tokens of the step that it takes.

    `due` is whom starvation prevention put first, -1 for nobody; `promotes` is whether the policy would have
    put another first, or one was evicted.
    """
    state, request, batch = books.state[0], books.requests[item], books.batch
    dequeue(books, options, item)
    group = books.groups[request.group]
    books.bands[request.band].picked_counter = group.counter
    if request.scheduled_s < 0:
        request.scheduled_s = state.now_s
        group.counter += options.prompt_token_weight * request.prompt_tokens
    if options.follows_fcfs:
        bound_started(books, options, item, due)
    if item == due:
        if promotes:
            request.promoted = 1
            state.promotions += 1
        request.quantum_left = options.quantum_steps
        state.protected += 1
    if request.generated > 0:
        request.resumed = 1
        state.resuming += 1
    at = state.running
    state.running += 1
    prefix = request.prompt_tokens + request.generated
    blocks = blocks_for(options, prefix)
    cached = 0 if request.swapped else take_again(books, options, item, prefix)
    take(books, options, blocks - cached)
    batch.item[at] = item
    batch.tokens[at] = prefix
    batch.left[at] = request.output_tokens - request.generated
    batch.capacity[at] = (blocks + options.shared_blocks) * options.block_size
    batch.gap_s[at] = request.max_token_gap_s
    if request.swapped:
        request.swapped = 0
        batch.to_prefill[at] = 0
        state.context += prefix - 1
        state.swap_ms += options.swap_ms_per_token * prefix
        # One evicted in this very plan has not been swapped out when the scheduler counts its tokens.
        return 1 if request.waiting_since_s < state.now_s else int(min(prefix, tokens_left))
    to_prefill = max(1, prefix - options.shared_prefix_tokens - cached * options.block_size)
    batch.to_prefill[at] = to_prefill
    state.to_prefill += to_prefill
    state.prefilling += 1
    return int(min(prefix, tokens_left))


@compiled
def evict(books: Books, options: Options, at: int) -> None:
    """Takes the request at this place of the batch out of it and queues it again."""
    state, batch = books.state[0], books.batch
    item = batch.item[at]
    request = books.requests[item]
    request.computed = batch.tokens[at] - max(1, batch.to_prefill[at])
    if batch.to_prefill[at] > 0:
        state.prefilling -= 1
        state.to_prefill -= batch.to_prefill[at]
    else:
        state.context -= batch.tokens[at] - 1
        if request.resumed == 0:
            request.last_token_s = state.now_s
        if options.swaps:
            request.swapped = 1
            state.swap_ms += options.swap_ms_per_token * batch.tokens[at]
    release(books, options, at)
    for later in range(at, state.running - 1):
        move(books, later + 1, later)
    state.running -= 1
    request.preemptions += 1
    state.preemptions += 1
    enqueue(books, options, item, state.now_s)


@compiled
def release(books: Books, options: Options, at: int) -> None:
    """Gives back what a request that leaves the batch held, and notes how far it came."""
    state, batch = books.state[0], books.batch
    request = books.requests[batch.item[at]]
    request.generated = request.output_tokens - batch.left[at]
    request.max_token_gap_s = batch.gap_s[at]
    give_back(books, options, batch.item[at], _held(books, options, at))
    if request.quantum_left > 0:
        request.quantum_left = 0
        state.protected -= 1
    if request.resumed:
        request.resumed = 0
        state.resuming -= 1


@compiled
def move(books: Books, source: int, target: int) -> None:
    """Moves a request within the batch, over the one that was there."""
    batch = books.batch
    batch.item[target] = batch.item[source]
    batch.tokens[target] = batch.tokens[source]
    batch.left[target] = batch.left[source]
    batch.to_prefill[target] = batch.to_prefill[source]
    batch.capacity[target] = batch.capacity[source]
    batch.gap_s[target] = batch.gap_s[source]


@compiled
def generated_by(books: Books, at: int) -> int:
    """Output tokens so far of the request at this place of the batch."""
    return int(books.requests[books.batch.item[at]].output_tokens - books.batch.left[at])


@compiled
def worst_running(books: Books, options: Options, count: int) -> int:
    """The place of the running request, among the first `count`, that is the first to yield.

    The worst band first; in it those not promoted before those that are, then the worst key.
    """
    now_s = books.state[0].now_s
    worst = 0
    worst_key = key_now(books, options, books.batch.item[0], generated_by(books, 0), now_s)
    for at in range(1, count):
        item, other = books.batch.item[at], books.batch.item[worst]
        request, champion = books.requests[item], books.requests[other]
        key = key_now(books, options, item, generated_by(books, at), now_s)
        if request.band != champion.band:
            yields = request.band > champion.band
        elif (request.quantum_left > 0) != (champion.quantum_left > 0):
            yields = request.quantum_left == 0
        elif key != worst_key:
            yields = key > worst_key
        else:
            yields = item > other
        if yields:
            worst, worst_key = at, key
    return worst


@compiled
def _may_evict(books: Books, options: Options, at: int, head: int, due: bool) -> bool:
    state = books.state[0]
    victim = books.batch.item[at]
    running, waiting = books.requests[victim], books.requests[head]
    if running.band != waiting.band:
        return bool(running.band > waiting.band)
    if running.quantum_left > 0:
        return False
    # Only one that overtook it. Where everybody is due, evicting each other would gain nothing.
    if due and running.waiting_since_s > waiting.waiting_since_s:
        return True
    generated = generated_by(books, at)
    if options.evicts == BY_LEVEL:
        return bool(key_now(books, options, victim, generated, state.now_s) > waiting.wait_key)
    if options.evicts == BY_REMAINING:
        saved = max(running.estimate - generated, 0.0) - max(waiting.estimate - waiting.generated, 0.0)
        restart = state.running * books.batch.tokens[at] * options.restart_steps_per_token
        return bool(saved > options.preemption_margin * restart)
    return False
