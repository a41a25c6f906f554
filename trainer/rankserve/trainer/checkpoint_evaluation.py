"""A trained ranker on prompts from elsewhere."""

from collections.abc import Sequence
from pathlib import Path

from rankserve.records.prompts import PromptRecord, prompt_id
from rankserve.trainer.backbones.tokenizers import load_tokenizer
from rankserve.trainer.batches import encode
from rankserve.trainer.data import DataError
from rankserve.trainer.evaluation import assess
from rankserve.trainer.model import RankerModel, RankerModelError
from rankserve.trainer.run_folder import RunFolder
from rankserve.trainer.scoring import score_encoded


def evaluate_checkpoint(path: Path, records: Sequence[PromptRecord]) -> dict[str, float]:
    """The figures of ``evaluation.assess`` and ``trained_on``, how many prompts were left out as known.

    Args:
        path: a run folder, or a Hugging Face checkpoint folder with its tokenizer.
        records: prompts with lengths of one LLM.

    Raises:
        RankerModelError: the folder holds no usable ranker.
        DataError: fewer than two prompts are left.
    """
    folder = RunFolder(path)
    if not folder.model.is_dir():
        known: frozenset[str] = frozenset()
        checkpoint, settings = path, {}
    elif folder.is_complete:
        known = folder.trained_on()
        checkpoint, settings = folder.model, folder.settings()
    else:
        raise RankerModelError(f"{path} is an unfinished run: continue it with `rankserve train --resume`")
    fresh = [record for record in records if prompt_id(record.prompt) not in known]
    if len(fresh) < 2:
        raise DataError(
            f"an order needs at least 2 prompts, and {len(fresh)} of {len(records)} are new to the ranker"
        )
    model, tokenizer = RankerModel.from_pretrained(checkpoint), load_tokenizer(checkpoint)
    longest = getattr(model.config, "max_position_embeddings", tokenizer.model_max_length)
    tokenizer.truncation_side = settings.get("truncation_side", tokenizer.truncation_side)
    rows = encode(tokenizer, [record.prompt for record in fresh], int(settings.get("max_length", longest)))
    scores = score_encoded(model, rows, tokenizer.pad_token_id)
    return {**assess(scores, fresh), "trained_on": float(len(records) - len(fresh))}
