"""May this model be published? Its order of validation prompts decides, not the values of its scores."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rankserve.exporter.agreement import Scores, discordant_share
from rankserve.exporter.errors import GateError
from rankserve.exporter.session import GraphScorer
from rankserve.exporter.tokenization import Tokens

MIN_PROMPTS = 30
MIN_TAU = 0.1
MAX_TAU_DROP = 0.005
MAX_RANK_FLIPS = 0.001
_FLIP_PROMPTS = 300
_FLIP_BATCH = 16


@dataclass(slots=True, frozen=True)
class BatchEffect:
    """What batch mates do to a prompt's score.

    Attributes:
        rank_flips: largest share of prompt pairs that a random batching orders unlike scoring alone does.
        max_move: largest change of a score.
    """

    rank_flips: float
    max_move: float


def check_prompts(count: int) -> None:
    """Raises GateError if there are too few validation prompts to tell a good ranker from a bad one."""
    if count < MIN_PROMPTS:
        raise GateError(
            f"{count} validation prompts cannot tell a good ranker from a bad one: give {MIN_PROMPTS} or more"
        )


def check_tau(tau: float, prompts: int, minimum: float) -> float:
    """The tau that was needed. Raises GateError if the scores do not order the prompts by output length."""
    # tau's deviation on unrelated scores (Kendall 1938); three of them are no accident.
    chance = 3 * float(np.sqrt(2 * (2 * prompts + 5) / (9 * prompts * (prompts - 1))))
    figures = f"Kendall's tau is {tau:.3f} on {prompts} validation prompts"
    if tau < 0:
        raise GateError(
            f"{figures}: the sign seems inverted. RankServe serves the highest score first, so a higher "
            "score must mean a shorter answer: negate the labels and train again"
        )
    if tau < max(minimum, chance):
        raise GateError(
            f"{figures}, at least {max(minimum, chance):.3f} is needed (chance alone reaches {chance:.3f}): "
            "train longer, or check that the lengths belong to these prompts"
        )
    return max(minimum, chance)


def check_tau_drop(tau: float, tau_fp32: float, what: str) -> None:
    """Raises GateError if what was done to the fp32 graph, a precision or an optimisation, orders worse."""
    if tau_fp32 - tau > MAX_TAU_DROP:
        raise GateError(
            f"{what} lowers Kendall's tau from {tau_fp32:.4f} to {tau:.4f}, by more than "
            f"{MAX_TAU_DROP}: export with --precision fp32 and without --optimize"
        )


def check_batch_effect(graph: GraphScorer, rows: Sequence[Tokens], *, seed: int) -> BatchEffect:
    """Scores prompts alone and in random batches, padded on either side.

    Raises:
        GateError: batch mates reorder too many pairs.
    """
    generator = np.random.default_rng(seed)
    sample = [rows[row] for row in generator.permutation(len(rows))[:_FLIP_PROMPTS]]
    alone = graph.score_in_batches(sample, [[row] for row in range(len(sample))])
    effect = BatchEffect(0.0, 0.0)
    for side in ("left", "right"):
        order = generator.permutation(len(sample)).tolist()
        batches = [order[at : at + _FLIP_BATCH] for at in range(0, len(order), _FLIP_BATCH)]
        effect = _worse(effect, alone, graph.score_in_batches(sample, batches, side=side))
    if effect.rank_flips > MAX_RANK_FLIPS:
        raise GateError(
            f"a prompt's score depends on its batch mates: {effect.rank_flips:.2%} of prompt pairs change "
            f"their order, allowed are {MAX_RANK_FLIPS:.2%}: export with --precision fp32"
        )
    return effect


def _worse(effect: BatchEffect, alone: Scores, batched: Scores) -> BatchEffect:
    return BatchEffect(
        max(effect.rank_flips, discordant_share(alone, batched)),
        max(effect.max_move, float(np.abs(alone - batched).max())),
    )
