"""The ranker as a torch module: a Hugging Face sequence classifier with one output, pooled by the mask.

Training and export share this module, so both pool alike.
"""

from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PretrainedConfig, PreTrainedModel


class RankerModelError(ValueError):
    """A checkpoint that cannot serve as a ranker. The message says why and what to do."""


class RankerModel(nn.Module):
    """Scores prompts: higher score = shorter answer expected = served sooner.

    A prompt is scored at its last attended token. ``attention_mask`` alone says which that is: the pad token
    id never does, since Hugging Face's own rule (the last token that is not ``pad_token_id``) silently pools
    elsewhere as soon as a batch is padded with another id or a prompt ends in the pad token.

    Left and right padding give the same scores. Rows are first shifted to the left edge, because position
    ids (all decoders but OPT), pooling at a first token (encoders) and fully masked leading rows are right
    only there.
    """

    def __init__(self, classifier: PreTrainedModel) -> None:
        """Wraps a ``*ForSequenceClassification`` model with one label.

        Raises:
            RankerModelError: it has another number of labels.
        """
        super().__init__()
        if classifier.config.num_labels != 1:
            raise RankerModelError(
                f"a ranker needs a sequence classifier with exactly 1 label, this one has "
                f"{classifier.config.num_labels}: train it with num_labels=1"
            )
        self.classifier = classifier

    @property
    def config(self) -> PretrainedConfig:
        return self.classifier.config

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
        head = getattr(self.classifier, "score", None)
        if not isinstance(head, nn.Linear):
            # Encoders pool inside, at the first token.
            logits: Tensor = self.classifier(input_ids=input_ids, attention_mask=attention_mask).logits
            return logits[:, 0].float()
        hidden = self.classifier.base_model(
            input_ids=input_ids, attention_mask=attention_mask, use_cache=False
        ).last_hidden_state
        last = (attention_mask.sum(dim=1) - 1).clamp(min=0)
        index = last[:, None, None].expand(-1, 1, hidden.shape[-1])
        pooled = hidden.gather(1, index).squeeze(1)
        scores: Tensor = head(pooled).squeeze(-1)
        return scores.float()


def _align_left(input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Rotates each row so that its attended run starts at column 0; rows that do already stay as they are."""
    length = input_ids.shape[1]
    columns = torch.arange(length, device=input_ids.device)
    start = (attention_mask.cumsum(dim=1) == 0).sum(dim=1, keepdim=True)
    source = columns[None, :] + start
    source = torch.where(source < length, source, source - length)
    return input_ids.gather(1, source), attention_mask.gather(1, source)
