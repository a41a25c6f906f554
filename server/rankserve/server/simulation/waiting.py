"""The waiting requests of a compiled run: who is next. The order of `rankserve.server.scheduling.queue`."""

import math

from rankserve.server.compiled import compiled
from rankserve.server.simulation.bound import bound_queued, bound_s
from rankserve.server.simulation.heaps import push, remove
from rankserve.server.simulation.layout import LEVEL_KEY, RESPONSE_RATIO, Books, Options


@compiled
def level_after(joined: int, generated: int, first_quantum: int, levels: int) -> int:
    """The MLFQ level of a request that joined at a level and has produced this many tokens."""
    level = joined
    while level < levels - 1 and generated >= level_ends_at(joined, level, first_quantum):
        level += 1
    return level


@compiled
def level_ends_at(joined: int, level: int, first_quantum: int) -> int:
    """Output tokens with which a request that joined at one level is demoted from another."""
    ends_at: int = first_quantum * ((1 << (level + 1)) - (1 << joined))
    return ends_at


@compiled
def key_now(books: Books, options: Options, item: int, generated: int, now_s: float) -> float:
    """The policy's key of a request that has produced this many tokens; smaller is sooner."""
    request = books.requests[item]
    if options.key_kind == LEVEL_KEY:
        return float(level_after(int(request.key), generated, options.first_quantum, options.levels))
    if options.key_kind == RESPONSE_RATIO:
        return -response_ratio(books, request.lane, now_s - request.arrival_s)
    return float(request.key + request.ageing + options.key_per_output_token * generated)


@compiled
def response_ratio(books: Books, lane: int, wait_s: float) -> float:
    """Wait over expected service, which is what HRRN compares (one is added to both sides)."""
    return float(wait_s / books.lanes[lane].service_tokens)


@compiled
def enqueue(books: Books, options: Options, item: int, since_s: float) -> None:
    """Puts a new or an evicted request among the waiting."""
    state, request = books.state[0], books.requests[item]
    band, group, lane = books.bands[request.band], books.groups[request.group], books.lanes[request.lane]
    if options.fair_share and group.waiting == 0:
        _lift(books, request.band, request.group)
    if options.follows_fcfs:
        request.ageing = bound_queued(books, options, item, since_s)
    request.wait_key = (
        request.arrival_s
        if options.key_kind == RESPONSE_RATIO
        else key_now(books, options, item, request.generated, since_s)
    )
    request.waiting_since_s = since_s
    request.since_step = state.steps
    requests = books.requests
    push(books.by_key, lane.low, lane.length, requests["at_key"], requests["wait_key"], item)
    since_s_of = requests["waiting_since_s"]
    if options.bounds_band:
        push(books.by_wait, band.low, band.waiting, requests["at_wait"], since_s_of, item)
    if options.follows_fcfs:
        push(books.by_turn, group.low, group.waiting, requests["at_turn"], since_s_of, item)
    lane.length += 1
    group.waiting += 1
    band.waiting += 1
    state.waiting += 1


@compiled
def dequeue(books: Books, options: Options, item: int) -> None:
    """Takes a request from among the waiting."""
    state, request, requests = books.state[0], books.requests[item], books.requests
    band, group, lane = books.bands[request.band], books.groups[request.group], books.lanes[request.lane]
    remove(books.by_key, lane.low, lane.length, requests["at_key"], requests["wait_key"], item)
    since_s_of = requests["waiting_since_s"]
    if options.bounds_band:
        remove(books.by_wait, band.low, band.waiting, requests["at_wait"], since_s_of, item)
    if options.follows_fcfs:
        remove(books.by_turn, group.low, group.waiting, requests["at_turn"], since_s_of, item)
    lane.length -= 1
    group.waiting -= 1
    band.waiting -= 1
    state.waiting -= 1


@compiled
def _lift(books: Books, band_number: int, group_number: int) -> None:
    """A tenant that comes back does not spend what it saved while it asked for nothing."""
    band, group = books.bands[band_number], books.groups[group_number]
    floor = math.inf
    for other in range(band.first_group, band.last_group):
        if books.groups[other].waiting > 0:
            floor = min(floor, books.groups[other].counter)
    if floor == math.inf:
        floor = band.picked_counter
    group.counter = max(group.counter, floor)


@compiled
def first_band(books: Books) -> int:
    """The band whose turn it is: the first with a waiting request; -1 if nothing waits."""
    for number in range(len(books.bands)):
        if books.bands[number].waiting > 0:
            return number
    return -1


@compiled
def due_in_band(books: Books, options: Options, band_number: int, now_s: float) -> int:
    """The request of a band that waits longest, if a bound that holds in the band says it is due; else -1."""
    if not options.bounds_band:
        return -1
    oldest = books.by_wait[books.bands[band_number].low]
    request = books.requests[oldest]
    late = now_s - request.waiting_since_s >= options.max_wait_s
    waited_steps = books.state[0].steps - request.since_step
    passed_over = options.threshold_steps > 0 and waited_steps >= options.threshold_steps
    return int(oldest) if late or passed_over else -1


@compiled
def due_of_tenant(books: Books, options: Options, band_number: int, now_s: float) -> int:
    """The request that waits longest of the tenant whose turn it is, if FCFS's wait has passed; else -1."""
    if not options.follows_fcfs:
        return -1
    oldest = books.by_turn[books.groups[next_group(books, band_number)].low]
    late = now_s - books.requests[oldest].waiting_since_s >= bound_s(books, options)
    return int(oldest) if late else -1


@compiled
def next_group(books: Books, band_number: int) -> int:
    """Whose turn it is in a band: of those with waiting requests, the tenant that was served least."""
    band = books.bands[band_number]
    chosen = -1
    for number in range(band.first_group, band.last_group):
        if books.groups[number].waiting > 0 and (
            chosen < 0 or books.groups[number].counter < books.groups[chosen].counter
        ):
            chosen = number
    return chosen


@compiled
def first_by_policy(books: Books, options: Options, band_number: int, now_s: float) -> int:
    """The request of a band that policy and fair share would start next."""
    group = books.groups[next_group(books, band_number)]
    best = -1
    best_ratio = -1.0
    for lane_number in range(group.first_lane, group.last_lane):
        lane = books.lanes[lane_number]
        if lane.length > 0:
            head = books.by_key[lane.low]
            if options.key_kind != RESPONSE_RATIO:
                return int(head)
            ratio = response_ratio(books, lane_number, now_s - books.requests[head].arrival_s)
            if ratio > best_ratio:
                best, best_ratio = head, ratio
    return best


@compiled
def next_due(books: Books, options: Options, band_number: int, now_s: float) -> tuple[float, float]:
    """When the band's next request becomes due: (moment in s, step), each inf if there is none."""
    moment_s, step = math.inf, math.inf
    if options.bounds_band:
        request = books.requests[books.by_wait[books.bands[band_number].low]]
        due_s = request.waiting_since_s + options.max_wait_s
        if due_s > now_s:
            moment_s = due_s
        due_step = request.since_step + options.threshold_steps
        if options.threshold_steps > 0 and due_step > books.state[0].steps:
            step = due_step
    if options.follows_fcfs:
        oldest = books.by_turn[books.groups[next_group(books, band_number)].low]
        due_s = books.requests[oldest].waiting_since_s + bound_s(books, options)
        if due_s > now_s:
            moment_s = min(moment_s, due_s)
    return moment_s, step
