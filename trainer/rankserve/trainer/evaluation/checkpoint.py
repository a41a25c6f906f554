"""A trained ranker on prompts from elsewhere."""

from collections.abc import Sequence
from pathlib import Path

from rankserve.records.prompts import PromptRecord, known_as
from rankserve.trainer.data.loading import DataError
from rankserve.trainer.evaluation.assessment import assess
from rankserve.trainer.trained_ranker import TrainedRanker


def evaluate_checkpoint(path: Path, records: Sequence[PromptRecord]) -> dict[str, float]:
    """The figures of ``evaluation.assess`` and ``trained_on``, how many prompts were left out as known.

    Args:
        path: a run folder, or a Hugging Face checkpoint folder with its tokenizer.
        records: prompts with lengths of one LLM.

    Raises:
        RankerModelError: the folder holds no usable ranker.
        DataError: fewer than two prompts are left.
    """
    ranker = TrainedRanker.load(path)
    fresh = [record for record in records if known_as(record.prompt).isdisjoint(ranker.trained_on)]
    if len(fresh) < 2:
        raise DataError(
            f"an order needs at least 2 prompts, and {len(fresh)} of {len(records)} are new to the ranker"
        )
    scores = ranker.score([record.prompt for record in fresh])
    return {**assess(scores, fresh), "trained_on": float(len(records) - len(fresh))}
