"""What is trained: a pretrained checkpoint with its tokenizer, or ``opt-mini`` from scratch."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, OPTConfig, PreTrainedTokenizerFast

from rankserve.trainer.config import OPT_MINI, MiniShape, ModelConfig
from rankserve.trainer.model import RankerModel, RankerModelError

# Ids 1 and 2 as in the released OPT checkpoints.
_SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>")
_PAD, _BOS = "<pad>", "</s>"


@dataclass(slots=True, frozen=True)
class Backbone:
    """A model to train and the tokenizer it reads with."""

    model: RankerModel
    tokenizer: PreTrainedTokenizerFast


def load_backbone(config: ModelConfig, training_prompts: Sequence[str]) -> Backbone:
    """The backbone that a config names. Fresh weights are drawn from torch's global generator.

    Args:
        config: what to load or make.
        training_prompts: what the tokenizer of ``opt-mini`` is trained on.

    Raises:
        RankerModelError: the checkpoint cannot be loaded, or is too short for ``max_length``.
    """
    backbone = _opt_mini(config, training_prompts) if config.backbone == OPT_MINI else _pretrained(config)
    backbone.tokenizer.truncation_side = config.truncation_side
    longest = getattr(backbone.model.config, "max_position_embeddings", config.max_length)
    if config.max_length > longest:
        raise RankerModelError(
            f"model.max_length is {config.max_length}, but {config.backbone} has positions for {longest}"
        )
    return backbone


def load_tokenizer(path_or_id: str | Path) -> PreTrainedTokenizerFast:
    """The fast tokenizer of a checkpoint, with a padding token.

    Raises:
        RankerModelError: there is none.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(  # type: ignore[no-untyped-call]
            str(path_or_id), use_fast=True
        )
    except (OSError, ValueError) as error:
        raise RankerModelError(f"cannot load the tokenizer of {path_or_id}: {error}") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise RankerModelError(f"{path_or_id} has no fast tokenizer (tokenizer.json), which serving needs")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def train_tokenizer(prompts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of these prompts; encodes any text, between two ``</s>``.

    OPT begins with one. The other gives a model trained from scratch one token to pool at, whatever a prompt
    ends in.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        prompts,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=list(_SPECIAL_TOKENS),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{_BOS} $A {_BOS}", special_tokens=[(_BOS, tokenizer.token_to_id(_BOS))]
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, bos_token=_BOS, eos_token=_BOS, pad_token=_PAD, unk_token="<unk>"
    )


def _opt_mini(config: ModelConfig, training_prompts: Sequence[str]) -> Backbone:
    shape = config.mini or MiniShape()
    tokenizer = train_tokenizer(training_prompts, shape.vocabulary)
    return Backbone(
        RankerModel.from_config(
            OPTConfig(  # type: ignore[no-untyped-call]
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
            )
        ),
        tokenizer,
    )


def _pretrained(config: ModelConfig) -> Backbone:
    overrides = {} if config.dropout is None else {"dropout": config.dropout}
    model = RankerModel.from_pretrained(config.backbone, **overrides)
    tokenizer = load_tokenizer(config.backbone)
    model.config.pad_token_id = tokenizer.pad_token_id
    return Backbone(model, tokenizer)
