"""What attention costs within a prompt, told apart by steps that prefill several prompts.

A token attends to those before it in its own prompt, so the tokens of several prompts attend to fewer than
those of one prompt that is as long as all of them. The rest of a step is the same.
"""

import numpy as np

from rankserve.server.engines.simulated.measured_grid import Numbers
from rankserve.server.engines.simulated.step_time import StepTimes


def fit_pair_ms(saved_ms: Numbers, prefill_tokens: Numbers, prompts: Numbers) -> float:
    """Least squares of what a pair of tokens that attend to each other takes, in ms; at least 0.

    Args:
        saved_ms: by how much steps with several prompts are shorter than with one of all their tokens.
        prefill_tokens: of all the prompts together.
        prompts: how many they are, of the same length; each [steps].
    """
    pairs = prefill_tokens**2 / 2 * (1 - 1 / prompts)
    return max(0.0, float(saved_ms @ pairs / (pairs @ pairs)))


def without_pairs(times: StepTimes, pair_ms: float) -> StepTimes:
    """The same times of steps with one chunk, but with the pairs in `prefill_pair_ms` instead of the table.

    At most so much that the table's last times do not fall, or beyond them it would lead below zero.
    """
    pairs = times.chunk_axis**2 / 2
    last_ms = times.attention_ms[-1] - times.attention_ms[-2]
    most_ms = min(
        float(last_ms.min()) / (pairs[-1] - pairs[-2]),
        *(float(ms.min()) / held for ms, held in zip(times.attention_ms[1:], pairs[1:], strict=True)),
    )
    pair_ms = max(0.0, min(pair_ms, most_ms))
    table = times.attention_ms - pair_ms * pairs[:, np.newaxis, np.newaxis, np.newaxis]
    return times._replace(attention_ms=table, prefill_pair_ms=pair_ms)
