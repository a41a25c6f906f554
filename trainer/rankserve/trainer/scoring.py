"""Scores of many prompts, without gradients."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from rankserve.trainer.batches import pad, parts_by_length
from rankserve.trainer.model import RankerModel


def score_encoded(
    model: RankerModel, rows: Sequence[Sequence[int]], pad_token_id: int, max_tokens: int = 4096
) -> NDArray[np.float32]:
    """Scores tokenised prompts in evaluation mode, on the model's device; restores the model's mode.

    Args:
        model: the ranker.
        rows: token ids, one sequence a prompt.
        pad_token_id: to pad with.
        max_tokens: of one forward pass, padding included.

    Returns:
        float32 [rows]; higher = shorter answer expected.
    """
    device = next(model.parameters()).device
    scores = np.empty(len(rows), dtype=np.float32)
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for part in parts_by_length([len(row) for row in rows], max_tokens):
            input_ids, attention_mask = pad([rows[i] for i in part], pad_token_id)
            scores[part] = model(input_ids.to(device), attention_mask.to(device)).cpu().numpy()
    model.train(was_training)
    return scores
