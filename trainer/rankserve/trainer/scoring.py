"""Scores of many prompts, without gradients."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from rankserve.progress import Stage
from rankserve.trainer.batches import pad, parts_by_length
from rankserve.trainer.model import RankerModel
from rankserve.trainer.training.distributed import Processes


def score_encoded(
    model: RankerModel,
    rows: Sequence[Sequence[int]],
    pad_token_id: int,
    max_tokens: int = 4096,
    processes: Processes | None = None,
    scoring: Stage | None = None,
) -> NDArray[np.float32]:
    """Scores tokenised prompts in evaluation mode, on the model's device; restores the model's mode.

    Args:
        model: the ranker.
        rows: token ids, one sequence a prompt.
        pad_token_id: to pad with.
        max_tokens: of one forward pass, padding included.
        processes: share the work, all calling alike; by default this one does it alone.
        scoring: is advanced by the rows.

    Returns:
        float32 [rows]; higher = shorter answer expected.
    """
    processes = processes or Processes()
    device = next(model.parameters()).device
    lengths = [len(row) for row in rows]
    # Every so many-th by length is the same work for each process.
    order = np.argsort(lengths, kind="stable")
    mine = [rows[i] for i in order[list(processes.share(len(rows)))]]
    own = torch.empty(len(mine), dtype=torch.float32, device=device)
    was_training = model.training
    left = len(rows)
    model.eval()
    with torch.inference_mode():
        for part in parts_by_length([len(row) for row in mine], max_tokens):
            input_ids, attention_mask = pad([mine[i] for i in part], pad_token_id)
            own[part] = model(input_ids.to(device), attention_mask.to(device))
            if scoring is not None:
                scored = min(left, len(part) * processes.count)
                scoring.advance(scored)
                left -= scored
    model.train(was_training)
    scores = np.empty(len(rows), dtype=np.float32)
    scores[order] = processes.gather(own, len(rows)).cpu().numpy()
    return scores
