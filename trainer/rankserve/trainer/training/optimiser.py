"""AdamW with a learning rate and a weight decay for each kind of weight."""

import re
from collections import defaultdict
from typing import Any

import torch
from torch import nn

from rankserve.trainer.config import OptimisationConfig
from rankserve.trainer.training.list_scorer import ListScorer

_LAYER = re.compile(r"\.(?:layers?|h|blocks?)\.(\d+)\.")
_BELOW_THE_LAYERS = re.compile(r"embed|project_in|\bwte\b|\bwpe\b")


def make_optimiser(scorer: ListScorer, settings: OptimisationConfig) -> torch.optim.AdamW:
    """AdamW on the groups of ``parameter_groups``."""
    return torch.optim.AdamW(
        parameter_groups(scorer, settings),
        lr=settings.learning_rate,
        betas=(0.9, settings.beta2),
        eps=1e-8,
        # One pass over weights that are mostly embeddings; without, it took 15 % of a step on a CPU.
        fused=True,
    )


def parameter_groups(scorer: ListScorer, settings: OptimisationConfig) -> list[dict[str, Any]]:
    """Weights of equal learning rate and weight decay, together.

    With ``layer_decay`` d and n layers, layer i (from 0) learns with d^(n - i) of the learning rate, the
    embeddings with d^(n + 1), whatever is above the layers with all of it (BEiT's rule). Biases,
    normalisation and embeddings have no weight decay.
    """
    undecayed = {
        f"{prefix}.{name}"
        for prefix, module in scorer.named_modules()
        for name, parameter in module.named_parameters(recurse=False)
        if isinstance(module, nn.Embedding) or parameter.ndim < 2
    }
    body = {id(weight) for weight in scorer.ranker.classifier.base_model.parameters()}
    named = [(name, weight) for name, weight in scorer.named_parameters() if weight.requires_grad]
    layers = 1 + max((int(match[1]) for name, _ in named if (match := _LAYER.search(name))), default=-1)
    groups: defaultdict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for name, weight in named:
        if id(weight) in body:
            rate = settings.learning_rate * settings.layer_decay ** _layers_above(name, layers)
        else:
            rate = settings.head_learning_rate or settings.learning_rate
        groups[rate, 0.0 if name in undecayed else settings.weight_decay].append(weight)
    return [
        {"params": weights, "lr": rate, "weight_decay": decay} for (rate, decay), weights in groups.items()
    ]


def _layers_above(name: str, layers: int) -> int:
    """0 for what is above the layers, 1 for the top one, ``layers`` + 1 for the embeddings."""
    if match := _LAYER.search(name):
        return layers - int(match[1])
    return layers + 1 if _BELOW_THE_LAYERS.search(name) else 0
