"""The ranker as it is trained: a whole list in one forward pass, with a head for each source where asked."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rankserve.trainer.model import RankerModel, RankerModelError


class ListScorer(nn.Module):
    """Scores the parts of a list.

    One call a list, whatever the number of its parts: DistributedDataParallel counts calls.
    """

    def __init__(self, ranker: RankerModel, extra_heads: int = 0) -> None:
        """Adds ``extra_heads`` linear heads beside the ranker's own, drawn from torch's global generator.

        Raises:
            RankerModelError: extra heads are asked for, and the ranker pools inside its own.
        """
        super().__init__()
        self.ranker = ranker
        self.heads = nn.ModuleList()
        if extra_heads:
            if ranker.head is None:
                raise RankerModelError(
                    f"{type(ranker.classifier).__name__} pools inside its head, so sources cannot have heads "
                    f'of their own: set separate_heads = false or pooling = "mean"'
                )
            for _ in range(extra_heads):
                head = nn.Linear(ranker.head.in_features, 1, bias=ranker.head.bias is not None)
                nn.init.normal_(head.weight, std=getattr(ranker.config, "init_std", 0.02))
                if head.bias is not None:
                    nn.init.zeros_(head.bias)
                self.heads.append(head)

    def forward(self, parts: Sequence[tuple[Tensor, Tensor]], head: int = 0) -> Tensor:
        """Scores a list.

        Args:
            parts: input ids and attention mask, as of ``RankerModel.forward``, of each part.
            head: 0 for the ranker's own, else the number of an extra one from 1.

        Returns:
            float32 [rows of all parts].
        """
        linear = self.heads[head - 1] if head else self.ranker.head
        if linear is None:
            return torch.cat([self.ranker(input_ids, attention_mask) for input_ids, attention_mask in parts])
        pooled = self.ranker.pooled(parts)
        # bf16 has 8 significant bits: neighbours in a list would get equal scores.
        with torch.autocast(pooled.device.type, enabled=False):
            scores: Tensor = linear(pooled.float()).squeeze(-1)
        return scores
