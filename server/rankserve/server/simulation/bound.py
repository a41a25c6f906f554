"""The bound that follows FCFS's wait: `scheduling.fcfs_bound`, compiled. See there for what it means."""

import math
from typing import Any

from rankserve.server.compiled import compiled
from rankserve.server.scheduling.fcfs_bound import (
    LENGTH_MEMORY,
    LENGTH_PRIOR,
    PACE_MEMORY,
    PACE_WINDOW,
    PROMPT_TOKEN_WORK,
    TRUST,
)
from rankserve.server.simulation.layout import Books, Options


@compiled
def bound_s(books: Books, options: Options) -> float:
    """A request is due once it has waited this long."""
    bound = books.bound[0]
    return float(options.share * bound.largest_wait_s * bound.trust)


@compiled
def may_overtake(books: Books, options: Options, item: int, due: int) -> bool:
    """Whether a request may start before one that is due."""
    work = _work_of(books, item)
    return bool(work <= books.bound[0].credit and work <= options.express_size * _work_of(books, due))


@compiled
def bound_queued(books: Books, options: Options, item: int, now_s: float) -> float:
    """A request begins to wait; returns what its age adds to its key. `state.waiting` is without it."""
    bound, request = books.bound[0], books.requests[item]
    if books.state[0].waiting == 0:
        bound.predicted_sum, bound.prompt_sum = 0.0, 0.0
        _restart(books, now_s)
    request.counted = _prediction(books, item)
    bound.predicted_sum += request.counted
    bound.prompt_sum += request.prompt_tokens
    _update(books, options, books.state[0].waiting + 1, now_s)
    return float(options.ageing * bound.bounds_passed)


@compiled
def _update(books: Books, options: Options, waiting: int, now_s: float) -> None:
    bound = books.bound[0]
    since_s = max(0.0, now_s - bound.updated_s)
    if bound.largest_wait_s > 0:
        bound.bounds_passed += min(1.0, since_s / bound.largest_wait_s)
    outputs = _tokens(books, waiting, bound.predicted_sum)
    wait_s = bound.seconds_per_work * (outputs + PROMPT_TOKEN_WORK * bound.prompt_sum)
    bound.largest_wait_s = max(wait_s, bound.largest_wait_s - options.forgetting * since_s)
    bound.updated_s = max(now_s, bound.updated_s)


@compiled
def bound_started(books: Books, options: Options, item: int, due: int) -> None:
    """A request stops waiting; `due` is whose turn starvation prevention said it was, -1 for nobody's."""
    bound, request = books.bound[0], books.requests[item]
    bound.predicted_sum -= request.counted
    bound.prompt_sum -= request.prompt_tokens
    if due >= 0:
        work = _work_of(books, item)
        if due == item:
            bound.credit = min(bound.credit + options.express_share * work, work)
        else:
            bound.credit -= work


@compiled
def bound_produced(books: Books, item: int, first: bool, tokens: int) -> None:
    """A running request got tokens."""
    bound = books.bound[0]
    bound.work += tokens
    if first:
        bound.work += PROMPT_TOKEN_WORK * books.requests[item].prompt_tokens


@compiled
def bound_finished(books: Books, item: int) -> None:
    """A running request got its last token."""
    bound, request = books.bound[0], books.requests[item]
    bound.ends += 1
    predicted, actual = request.predicted, request.output_tokens
    if predicted == math.inf:
        return
    keep = 1 - 1 / LENGTH_MEMORY
    bound.count = keep * bound.count + 1
    bound.predicted = keep * bound.predicted + predicted
    bound.actual = keep * bound.actual + actual
    bound.square = keep * bound.square + predicted * predicted
    bound.product = keep * bound.product + predicted * actual
    mean_predicted, mean_actual = bound.predicted / bound.count, bound.actual / bound.count
    variance = bound.square / bound.count - mean_predicted * mean_predicted
    covariance = bound.product / bound.count - mean_predicted * mean_actual
    bound.slope = 1.0
    if variance > 1e-9 * mean_predicted * mean_predicted:
        weight = bound.count
        bound.slope = (weight * covariance / variance + LENGTH_PRIOR) / (weight + LENGTH_PRIOR)
    bound.intercept = mean_actual - bound.slope * mean_predicted
    _agree(bound, math.log(max(predicted, 1.0)), math.log(actual))


@compiled
def _agree(bound: Any, x: float, y: float) -> None:
    keep = 1 - 1 / LENGTH_MEMORY
    bound.log_predicted = keep * bound.log_predicted + x
    bound.log_actual = keep * bound.log_actual + y
    bound.log_predicted_square = keep * bound.log_predicted_square + x * x
    bound.log_actual_square = keep * bound.log_actual_square + y * y
    bound.log_product = keep * bound.log_product + x * y
    n = bound.count
    x_variance = n * bound.log_predicted_square - bound.log_predicted * bound.log_predicted
    y_variance = n * bound.log_actual_square - bound.log_actual * bound.log_actual
    bound.trust = 1.0
    if x_variance > 1e-9 * n * n and y_variance > 1e-9 * n * n:
        covariance = n * bound.log_product - bound.log_predicted * bound.log_actual
        correlation = covariance / math.sqrt(x_variance * y_variance)
        bound.trust = min(1.0, max(0.0, TRUST * (n * correlation + LENGTH_PRIOR) / (n + LENGTH_PRIOR)))


@compiled
def bound_look(books: Books, options: Options, now_s: float) -> None:
    """Measures the pace, before each plan with requests waiting."""
    bound = books.bound[0]
    if bound.ends >= PACE_WINDOW:
        keep = 1 - 1 / PACE_MEMORY
        bound.work_square = keep * bound.work_square + bound.work * bound.work
        bound.work_time = keep * bound.work_time + (now_s - bound.since_s) * bound.work
        bound.seconds_per_work = bound.work_time / bound.work_square
        _restart(books, now_s)
        # A burst that came before anything was known is known now.
        _update(books, options, books.state[0].waiting, now_s)


@compiled
def _restart(books: Books, now_s: float) -> None:
    bound = books.bound[0]
    bound.since_s, bound.work, bound.ends = now_s, 0.0, 0


@compiled
def _prediction(books: Books, item: int) -> float:
    bound, predicted = books.bound[0], books.requests[item].predicted
    if predicted < math.inf:
        return float(predicted)
    return float(bound.predicted / bound.count) if bound.count > 0 else 1.0


@compiled
def _tokens(books: Books, count: int, predicted_sum: float) -> float:
    bound = books.bound[0]
    return float(max(bound.intercept * count + bound.slope * predicted_sum, float(count)))


@compiled
def _work_of(books: Books, item: int) -> float:
    outputs = _tokens(books, 1, _prediction(books, item))
    return float(outputs + PROMPT_TOKEN_WORK * books.requests[item].prompt_tokens)
