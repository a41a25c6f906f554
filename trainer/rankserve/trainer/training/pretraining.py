"""Teaching an OPT to continue prompts before it is taught to rank them: a prompt's words are labels enough.

A model that begins at random learns most of its embeddings here, from every prompt that is trained on, those
of auxiliary sources included (Radford et al. 2018).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import OPTForSequenceClassification

from rankserve.progress import stage
from rankserve.trainer.batches import pad, parts_by_length
from rankserve.trainer.config import PretrainingConfig
from rankserve.trainer.data.lists import RankedPrompt
from rankserve.trainer.model import RankerModel, RankerModelError

# Prompts of similar length are put together out of so many at a time.
_POOL = 4096


def pretrain(
    model: RankerModel,
    prompts: Sequence[Sequence[RankedPrompt]],
    config: PretrainingConfig,
    *,
    pad_token_id: int,
    max_tokens: int,
    bf16: bool,
    seed: int,
) -> None:
    """Trains the body of ``model`` to predict each token of the prompts from those before it.

    The output layer is the embedding table, as in OPT; the ranker's head stays as it is. Draws dropout from
    torch's global generator.

    Args:
        model: an OPT.
        prompts: of each source.
        config: how.
        pad_token_id: to pad with.
        max_tokens: of one step, padding included.
        bf16: whether matrix products are of that precision.
        seed: of the order of the prompts.

    Raises:
        RankerModelError: the model is no OPT.
    """
    if not isinstance(model.classifier, OPTForSequenceClassification):
        raise RankerModelError(
            f"[pretraining] is for OPT, which reads from left to right; {type(model.classifier).__name__} "
            f"is none: leave the section out"
        )
    body = model.classifier.model
    weights = list(body.parameters())
    device = weights[0].device
    optimiser = torch.optim.AdamW(weights, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    total = config.epochs * sum(map(len, prompts))
    seen = 0
    model.train()
    with stage("pretraining", total, "prompts") as pretraining:
        for rows in _batches(prompts, config.epochs, max_tokens, np.random.default_rng(seed)):
            seen += len(rows)
            rate = config.learning_rate * min(seen / total / config.warmup_share, 1 - seen / total)
            for group in optimiser.param_groups:
                group["lr"] = rate
            input_ids, attention_mask = (tensor.to(device) for tensor in pad(rows, pad_token_id))
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                loss = _next_token_loss(body, input_ids, attention_mask)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(weights, 1.0)
            optimiser.step()
            optimiser.zero_grad()
            pretraining.advance(len(rows), f"loss {loss.item():.3f}")


def save_body(model: RankerModel, path: Path) -> None:
    """Writes the weights of a pretrained body; the file is there once it is whole."""
    temporary = path.with_suffix(".tmp")
    save_file(model.classifier.base_model.state_dict(), temporary)
    temporary.replace(path)


def load_body(model: RankerModel, path: Path) -> None:
    """Reads what ``save_body`` wrote."""
    model.classifier.base_model.load_state_dict(load_file(path))


def _next_token_loss(body: nn.Module, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    states = body(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state
    followed = attention_mask[:, 1:].bool()
    embeddings: Tensor = body.get_input_embeddings().weight  # type: ignore[operator]
    logits = states[:, :-1][followed] @ embeddings.T
    return cross_entropy(logits.float(), input_ids[:, 1:][followed])


def _batches(
    prompts: Sequence[Sequence[RankedPrompt]], epochs: int, max_tokens: int, rng: np.random.Generator
) -> Iterator[list[Sequence[int]]]:
    """Token ids: in each epoch all prompts in a new order, of similar length within a batch."""
    places = np.array([(source, row) for source, rows in enumerate(prompts) for row in range(len(rows))])
    for _ in range(epochs):
        order = rng.permutation(places)
        for start in range(0, len(order), _POOL):
            pool = [prompts[source][row].input_ids for source, row in order[start : start + _POOL].tolist()]
            # A prompt of one token has nothing to predict.
            pool = [ids for ids in pool if len(ids) > 1]
            parts = parts_by_length([len(ids) for ids in pool], max_tokens)
            for number in rng.permutation(len(parts)).tolist():
                yield [pool[i] for i in parts[number]]
