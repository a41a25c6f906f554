"""Run by torchrun: the loss and the gradient of lists shared over processes, against those of one process.

Prints one JSON object a list: how far both are apart at most, on any process.
"""

import copy
import json
import sys

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from transformers import OPTConfig

from rankserve.trainer.config import LossConfig
from rankserve.trainer.data.lists import RankedList, RankedPrompt
from rankserve.trainer.losses import make_loss
from rankserve.trainer.model import RankerModel
from rankserve.trainer.training.collation import ListCollator, score_list
from rankserve.trainer.training.distributed import Processes
from rankserve.trainer.training.list_scorer import ListScorer

# Of one prompt a process, of fewer prompts than processes, of shares that differ, of several parts each.
LIST_SIZES = (3, 2, 7, 40)
MAX_TOKENS = 64


def a_list(size: int, source: int) -> RankedList:
    def prompt() -> RankedPrompt:
        length = int(torch.randint(1, 20, ()))
        return RankedPrompt(
            tuple(torch.randint(4, 60, (length,)).tolist()), (int(torch.randint(1, 500, ())),), (False,)
        )

    return RankedList(source, [prompt() for _ in range(size)])


def main() -> None:
    torch.manual_seed(0)
    with Processes.joined() as processes:
        ranker = RankerModel.from_config(
            OPTConfig(  # type: ignore[no-untyped-call]
                vocab_size=64,
                hidden_size=32,
                word_embed_proj_dim=32,
                ffn_dim=64,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=32,
                dropout=0.0,
            )
        )
        alone = ListScorer(ranker, extra_heads=1)
        together = DistributedDataParallel(copy.deepcopy(alone), find_unused_parameters=True)
        loss = make_loss(LossConfig())
        for i, size in enumerate(LIST_SIZES):
            ranked = a_list(size, source=i % 2)
            found = []
            for model, group in ((alone, Processes()), (together, processes)):
                inputs = ListCollator([0, 1], 1, MAX_TOKENS, group)([ranked])
                _, value = score_list(model, inputs, loss, group)
                value.backward()  # type: ignore[no-untyped-call]
                found.append(value)
            losses = (found[0] - found[1]).abs().detach()
            gradients = torch.zeros(())
            for expected, got in zip(alone.parameters(), together.module.parameters(), strict=True):
                zero = torch.zeros_like(expected)
                one, other = (weight.grad if weight.grad is not None else zero for weight in (expected, got))
                gradients = torch.maximum(gradients, (one - other).abs().max())
            largest = max(
                float(weight.grad.abs().max()) for weight in alone.parameters() if weight.grad is not None
            )
            for difference in (losses, gradients):
                distributed.all_reduce(difference, distributed.ReduceOp.MAX)
            alone.zero_grad()
            together.zero_grad()
            if processes.is_first:
                report = {
                    "prompts": size,
                    "loss": losses.item(),
                    "gradient": gradients.item(),
                    "largest": largest,
                }
                sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main()
