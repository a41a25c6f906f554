"""The ranker as a torch module: a Hugging Face sequence classifier with one output, pooled by the mask.

Training and export share this module, so both pool alike.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PretrainedConfig, PreTrainedModel

from rankserve.trainer.ragged import Ragged, has_ragged_attention, ragged_states

Pooling = Literal["native", "mean"]
# Where config.json keeps it. Hugging Face's own classes ignore it.
_POOLING = "ranker_pooling"


class RankerModelError(ValueError):
    """A checkpoint that cannot serve as a ranker. The message says why and what to do."""


class RankerModel(nn.Module):
    """Scores prompts: higher score = shorter answer expected = served sooner.

    Pooling "native" is that of the architecture: decoders are scored at the last attended token, encoders by
    their own head, mostly at the first token. "mean" averages the states of all attended tokens, as sentence
    encoders were trained. ``attention_mask`` alone says which tokens count: the pad token id never does,
    since Hugging Face's own rule (the last token that is not ``pad_token_id``) silently pools elsewhere as
    soon as a batch is padded with another id or a prompt ends in the pad token.

    Left and right padding give the same scores. Rows are first shifted to the left edge, because position
    ids (all decoders but OPT), pooling at a first token (encoders) and fully masked leading rows are right
    only there.
    """

    def __init__(self, classifier: PreTrainedModel) -> None:
        """Wraps a ``*ForSequenceClassification`` model with one label; pools as ``config.ranker_pooling``.

        Raises:
            RankerModelError: it has another number of labels, or a head that cannot follow that pooling.
        """
        super().__init__()
        if classifier.config.num_labels != 1:
            raise RankerModelError(
                f"a ranker needs a sequence classifier with exactly 1 label, this one has "
                f"{classifier.config.num_labels}: train it with num_labels=1"
            )
        self.pooling: Pooling = getattr(classifier.config, _POOLING, "native")
        if self.pooling not in get_args(Pooling):
            raise RankerModelError(f"{_POOLING} {self.pooling!r} is none of {', '.join(get_args(Pooling))}")
        self.classifier = classifier
        if self.pooling == "mean" and self.head is None:
            raise RankerModelError(
                f'{type(classifier).__name__} pools inside its head and cannot use pooling = "mean": '
                f'use pooling = "native"'
            )

    @property
    def config(self) -> PretrainedConfig:
        return self.classifier.config

    @property
    def positions(self) -> int | None:
        """Tokens of the longest prompt that it can read; None if there is no bound."""
        longest: int | None = getattr(self.config, "max_position_embeddings", None)
        if longest is None:
            return None
        # RoBERTa and its kind count positions from behind the one that padding has.
        table = getattr(getattr(self.classifier.base_model, "embeddings", None), "position_embeddings", None)
        padding = getattr(table, "padding_idx", None)
        return longest if padding is None else longest - padding - 1

    @property
    def head(self) -> nn.Linear | None:
        """What makes a score of a pooled state; None if the classifier pools inside its own head."""
        names = ("score", "classifier") if self.pooling == "mean" else ("score",)
        heads = (getattr(self.classifier, name, None) for name in names)
        return next((head for head in heads if isinstance(head, nn.Linear)), None)

    @classmethod
    def from_pretrained(cls, path_or_id: str | Path, **config_overrides: Any) -> Self:
        """Loads a checkpoint folder or hub id, in fp32 and evaluation mode.

        A ``*ForSequenceClassification`` checkpoint with one label keeps its head; a base or causal-LM
        checkpoint gets a fresh one.

        Args:
            path_or_id: a local folder or a Hugging Face hub id such as ``facebook/opt-125m``.
            config_overrides: fields of the model's config to change, e.g. ``dropout=0.1``.

        Raises:
            RankerModelError: no such folder or model, weights missing, or a classifier of several labels.
        """
        name = str(path_or_id)
        try:
            config = AutoConfig.from_pretrained(name)
        except (OSError, ValueError) as error:
            raise RankerModelError(f"cannot load {name}: {error}") from error
        architecture = (config.architectures or [""])[0]
        if not architecture.endswith("ForSequenceClassification"):
            config.num_labels = 1
        elif config.num_labels != 1:
            raise RankerModelError(
                f"{name} is a classifier of {config.num_labels} labels; a ranker has exactly 1"
            )
        for field, value in config_overrides.items():
            setattr(config, field, value)
        try:
            classifier = AutoModelForSequenceClassification.from_pretrained(
                name, config=config, dtype=torch.float32
            )
        except (OSError, ValueError) as error:
            raise RankerModelError(f"cannot load the weights of {name}: {error}") from error
        return cls(classifier).eval()

    @classmethod
    def from_config(cls, config: PretrainedConfig) -> Self:
        """A randomly initialised ranker, in training mode. Draws from torch's global generator."""
        config.num_labels = 1
        return cls(AutoModelForSequenceClassification.from_config(config))  # type: ignore[no-untyped-call]

    def save_pretrained(self, folder: Path) -> None:
        """Writes ``config.json`` and ``model.safetensors`` in Hugging Face's format for the wrapped class."""
        self.classifier.save_pretrained(folder, safe_serialization=True)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Scores a padded batch.

        Args:
            input_ids: int64 [batch, length].
            attention_mask: int64 [batch, length]; 1 for the prompt's tokens, one unbroken run a row, else 0.

        Returns:
            float32 [batch].
        """
        input_ids, attention_mask = _align_left(input_ids, attention_mask)
        head = self.head
        if head is None:
            logits: Tensor = self.classifier(input_ids=input_ids, attention_mask=attention_mask).logits
            return logits[:, 0].float()
        scores: Tensor = head(self._pooled(attention_mask, input_ids=input_ids)).squeeze(-1)
        return scores.float()

    def pooled(self, parts: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """The states that ``head`` scores of several batches, [rows of all, hidden].

        All tokens are embedded at once: the gradient of an embedding table has the size of the table whatever
        was looked up, and one for each part took 14 % of a training step (30,522 x 384, 6 layers, 6 parts).

        Args:
            parts: input ids and attention mask of each batch, as of ``forward``.

        Raises:
            RankerModelError: the classifier pools inside its own head.
        """
        if self.head is None:
            raise RankerModelError(
                f'{type(self.classifier).__name__} pools inside its head: set pooling = "mean"'
            )
        aligned = [_align_left(input_ids, attention_mask) for input_ids, attention_mask in parts]
        if has_ragged_attention(self.classifier):
            ragged = Ragged.of(aligned)
            if self.pooling == "native":
                return ragged_states(self.classifier, ragged, only_last=True)
            states = ragged_states(self.classifier, ragged, only_last=False)
            return torch.stack(
                [prompt.mean(dim=0) for prompt in torch.split(states, ragged.lengths.tolist())]
            )
        table = self.classifier.get_input_embeddings()
        embedded = table(torch.cat([input_ids.flatten() for input_ids, _ in aligned]))
        of_part = embedded.split([input_ids.numel() for input_ids, _ in aligned])
        return torch.cat(
            [
                self._pooled(attention_mask, inputs_embeds=embeddings.view(*attention_mask.shape, -1))
                for embeddings, (_, attention_mask) in zip(of_part, aligned, strict=True)
            ]
        )

    def _pooled(self, attention_mask: Tensor, **inputs: Tensor) -> Tensor:
        """Of rows at the left edge."""
        # Only those that have a cache know the argument.
        uncached = {"use_cache": False} if hasattr(self.config, "use_cache") else {}
        hidden: Tensor = self.classifier.base_model(
            attention_mask=attention_mask, **inputs, **uncached
        ).last_hidden_state
        if self.pooling == "mean":
            attended = attention_mask[:, :, None].to(hidden.dtype)
            return (hidden * attended).sum(dim=1) / attended.sum(dim=1).clamp(min=1)
        last = (attention_mask.sum(dim=1) - 1).clamp(min=0)
        return hidden.gather(1, last[:, None, None].expand(-1, 1, hidden.shape[-1])).squeeze(1)


def _align_left(input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Rotates each row so that its attended run starts at column 0; rows that do already stay as they are."""
    length = input_ids.shape[1]
    columns = torch.arange(length, device=input_ids.device)
    start = (attention_mask.cumsum(dim=1) == 0).sum(dim=1, keepdim=True)
    source = columns[None, :] + start
    source = torch.where(source < length, source, source - length)
    return input_ids.gather(1, source), attention_mask.gather(1, source)
