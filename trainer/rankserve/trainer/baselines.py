"""What a ranker has to beat: the length of the prompt, and a linear model on its words."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline

from rankserve.records.prompts import PromptRecord


def prompt_length_scores(records: Sequence[PromptRecord]) -> NDArray[np.float64]:
    """Shorter prompts first; float64 [records]."""
    return -np.array([len(record.prompt) for record in records], dtype=np.float64)


def linear_scores(train: Sequence[PromptRecord], records: Sequence[PromptRecord]) -> NDArray[np.float64]:
    """TF-IDF of words and word pairs, ridge on the log of the mean length; float64 [records]."""
    pipeline = _linear().fit([record.prompt for record in train], _targets(train))
    predicted: NDArray[np.float64] = pipeline.predict([record.prompt for record in records])
    return -predicted


def linear_scores_cross_validated(
    records: Sequence[PromptRecord], folds: int = 5, seed: int = 0
) -> NDArray[np.float64]:
    """The same linear model, each prompt scored by one trained on the other folds; float64 [records]."""
    predicted: NDArray[np.float64] = cross_val_predict(
        _linear(),
        [record.prompt for record in records],
        _targets(records),
        cv=KFold(min(folds, len(records)), shuffle=True, random_state=seed),
    )
    return -predicted


def _linear() -> Pipeline:
    return make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), Ridge(alpha=1.0))


def _targets(records: Sequence[PromptRecord]) -> NDArray[np.float64]:
    return np.log([record.mean_length for record in records])
