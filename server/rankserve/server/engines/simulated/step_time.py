"""How long a step of a simulated LLM takes: one representation for linear fits and measured tables.

A step's time is the sum of its attention, of what its tokens cost elsewhere (matrix products, norms), of what
its sequences cost (LM head, sampler), and of the overhead between kernels. Each is a grid: linear between its
points and beyond its last one, constant before its first. A linear fit is a grid of two points an axis.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rankserve.server.compiled import compiled

Numbers = NDArray[np.float64]


class StepTimes(NamedTuple):
    """The tables of one simulated LLM. Axes ascend; times are ms.

    Attributes:
        chunk_axis: tokens that a step prefills, from 0.
        history_axis: KV that a prefilled token finds from before its chunk, mean over the tokens.
        sequences_axis: sequences that decode, from 0.
        context_axis: tokens that such a sequence attends to, mean over the sequences.
        attention_ms: all layers' attention, [chunk, history, sequences, context].
        tokens_axis: tokens of a step, prefilled and decoded.
        tokens_ms: what they cost outside attention, [tokens].
        sampled_axis: sequences that get logits.
        sampled_ms: what these cost, [sampled].
        straggler_ms: added to a step that prefills and decodes, for each token by which the longest decoding
            sequence exceeds the mean: beside a chunk, the attention kernel does not split one sequence's KV
            over processors, so that the step waits for the longest.
        prefill_pair_ms: added for each pair of a prefilled token and one before it in its sequence, to which
            it attends; 0 where the tables have that in them, as if all were one chunk.
        overhead_ms: added to each step, for what the tables leave out.
    """

    chunk_axis: Numbers
    history_axis: Numbers
    sequences_axis: Numbers
    context_axis: Numbers
    attention_ms: Numbers
    tokens_axis: Numbers
    tokens_ms: Numbers
    sampled_axis: Numbers
    sampled_ms: Numbers
    straggler_ms: float
    prefill_pair_ms: float
    overhead_ms: float


@compiled
def step_ms(
    times: StepTimes,
    prefill_tokens: int,
    prefill_history_tokens: int,
    prefill_squares: int,
    decode_sequences: int,
    decode_context_tokens: int,
    longest_decode_context: int,
    sampled_sequences: int,
) -> float:
    """Duration of one step in ms.

    Args:
        times: the LLM's tables.
        prefill_tokens: tokens that are prefilled, the sum of the chunks.
        prefill_history_tokens: sum over the chunks of chunk x KV that its sequence has already.
        prefill_squares: sum over the chunks of chunk x chunk.
        decode_sequences: sequences that decode a token each.
        decode_context_tokens: sum over them of the tokens that they attend to.
        longest_decode_context: the largest of these; only matters in a step that prefills too.
        sampled_sequences: sequences that get logits: decoding ones and those whose prefill completes.
    """
    if prefill_tokens == 0:
        intercept, slope, _ = decode_line(times, decode_sequences, decode_context_tokens)
        return intercept + slope * decode_context_tokens
    chunk, chunk_share = _bracket(times.chunk_axis, prefill_tokens, 1)
    history, history_share = _bracket(times.history_axis, prefill_history_tokens, prefill_tokens)
    count, count_share, context, context_share = 0, 0.0, 0, 0.0
    if decode_sequences > 0:
        count, count_share = _bracket(times.sequences_axis, decode_sequences, 1)
        context, context_share = _bracket(times.context_axis, decode_context_tokens, decode_sequences)
    attention = 0.0
    for i in range(2):
        weight = chunk_share if i == 1 else 1.0 - chunk_share
        for j in range(2):
            share = weight * (history_share if j == 1 else 1.0 - history_share)
            if share != 0.0:
                grid = times.attention_ms[chunk + i, history + j]
                attention += share * _between(
                    _between(grid[count, context], grid[count + 1, context], count_share),
                    _between(grid[count, context + 1], grid[count + 1, context + 1], count_share),
                    context_share,
                )
    straggler = 0.0
    if decode_sequences > 0:
        excess = longest_decode_context - decode_context_tokens / decode_sequences
        straggler = times.straggler_ms * max(0.0, excess)
    return (
        attention
        + straggler
        + times.prefill_pair_ms * (prefill_history_tokens + prefill_squares / 2)
        + _value(times.tokens_axis, times.tokens_ms, prefill_tokens + decode_sequences)
        + _value(times.sampled_axis, times.sampled_ms, sampled_sequences)
        + times.overhead_ms
    )


@compiled
def decode_line(
    times: StepTimes, decode_sequences: int, decode_context_tokens: int
) -> tuple[float, float, float]:
    """The duration of a step that only decodes, as a line over the sum of its contexts.

    Returns:
        (intercept ms, slope ms per token, the last sum of contexts up to which they hold), from
        `decode_context_tokens` on; inf if they hold for ever. For a fixed number of sequences the step's
        duration is intercept + slope x sum of contexts.
    """
    intercept, slope, last = _attention_line(times, decode_sequences, decode_context_tokens)
    intercept += (
        _value(times.tokens_axis, times.tokens_ms, decode_sequences)
        + _value(times.sampled_axis, times.sampled_ms, decode_sequences)
        + times.overhead_ms
    )
    return intercept, slope, last


@compiled
def _attention_line(
    times: StepTimes, decode_sequences: int, decode_context_tokens: int
) -> tuple[float, float, float]:
    """Attention of a step without prefill, as a line over the sum of contexts; see `decode_line`."""
    grid = times.attention_ms[0, 0]
    if decode_sequences == 0:
        return float(grid[0, 0]), 0.0, math.inf
    axis = times.context_axis
    at, share = _bracket(times.sequences_axis, decode_sequences, 1)
    point = _points_reached(axis, decode_context_tokens, decode_sequences)
    last = axis[point] * decode_sequences if point < len(axis) else math.inf
    lower = min(max(point - 1, 0), len(axis) - 2)
    first = _between(grid[at, lower], grid[at + 1, lower], share)
    if point == 0:
        return first, 0.0, last
    second = _between(grid[at, lower + 1], grid[at + 1, lower + 1], share)
    per_mean_token = (second - first) / (axis[lower + 1] - axis[lower])
    return first - per_mean_token * axis[lower], per_mean_token / decode_sequences, last


@compiled
def _value(axis: Numbers, values: Numbers, at: int) -> float:
    lower, share = _bracket(axis, at, 1)
    return _between(values[lower], values[lower + 1], share)


@compiled
def _between(first: float, second: float, share: float) -> float:
    return first + share * (second - first)


@compiled
def _bracket(axis: Numbers, total: int, count: int) -> tuple[int, float]:
    """Where total / count lies: the lower grid point and the share of the way to the next.

    The share exceeds 1 beyond the axis, and is 0 before it.
    """
    point = _points_reached(axis, total, count)
    if point == 0:
        return 0, 0.0
    lower = min(point - 1, len(axis) - 2)
    return lower, (total / count - axis[lower]) / (axis[lower + 1] - axis[lower])


@compiled
def _points_reached(axis: Numbers, total: int, count: int) -> int:
    """How many points of the axis are at or below total / count, without rounding the quotient."""
    low, high = 0, len(axis)
    while low < high:
        middle = (low + high) // 2
        if axis[middle] * count <= total:
            low = middle + 1
        else:
            high = middle
    return low
