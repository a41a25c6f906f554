"""A list as the model takes it: each process scores a share, and computes the loss of the whole."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from rankserve.trainer.batches import pad, parts_by_length
from rankserve.trainer.data.lists import RankedList
from rankserve.trainer.labels import ListLabels
from rankserve.trainer.losses import Loss
from rankserve.trainer.training.distributed import Processes


class ListCollator:
    """Makes a list into this process's share of it, in parts of similar length, and the labels of all of it.

    The whole list is by rising length, and of that each process takes every so many-th prompt, which is about
    the same work for each.
    """

    def __init__(
        self, heads: Sequence[int], pad_token_id: int, max_tokens: int, processes: Processes
    ) -> None:
        """Prepares for lists of several sources.

        Args:
            heads: the head of a ``ListScorer`` that each source trains.
            pad_token_id: to pad with.
            max_tokens: of a part, padding included.
            processes: that share each list.
        """
        self._heads = heads
        self._pad_token_id = pad_token_id
        self._max_tokens = max_tokens
        self._processes = processes

    def __call__(self, lists: Sequence[RankedList]) -> dict[str, Any]:
        """What ``score_list`` takes, of a single list."""
        [ranked] = lists
        prompts = sorted(ranked.prompts, key=lambda prompt: len(prompt.input_ids))
        own = [prompts[i].input_ids for i in self._processes.share(len(prompts))]
        # A process whose share is empty takes part in the step all the same.
        rows = own or [prompts[0].input_ids]
        parts = parts_by_length([len(row) for row in rows], self._max_tokens)
        teachers = [prompt.teacher for prompt in prompts if prompt.teacher is not None]
        return {
            "parts": [pad([rows[i] for i in part], self._pad_token_id) for part in parts],
            "own": len(own),
            "head": self._heads[ranked.source],
            "labels": ListLabels.of(
                [prompt.lengths for prompt in prompts],
                [prompt.censored for prompt in prompts],
                teachers if len(teachers) == len(prompts) else None,
            ),
        }


def score_list(
    model: nn.Module, inputs: Mapping[str, Any], loss: Loss, processes: Processes
) -> tuple[Tensor, Tensor]:
    """The scores of a whole list [items] and their loss, the same on every process.

    Args:
        model: a ``ListScorer``, or what shares its gradients over the processes.
        inputs: what a ``ListCollator`` made.
        loss: of a list.
        processes: that share the list.
    """
    labels: ListLabels = inputs["labels"]
    own = model(inputs["parts"], inputs["head"])[: inputs["own"]]
    scores = processes.gather(own, len(labels))
    return scores, loss(scores, labels.to(scores.device))
