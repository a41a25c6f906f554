"""Tokenizers: that of a checkpoint, or one trained on the prompts at hand."""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from rankserve.trainer.model import RankerModelError

# Ids 1 and 2 as in the released OPT checkpoints.
_SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>")
_PAD, _BOS = "<pad>", "</s>"


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
