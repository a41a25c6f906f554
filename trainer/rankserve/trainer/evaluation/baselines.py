"""What a ranker has to beat: the length of the prompt, and linear models on its words and its embedding."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline

from rankserve.records.prompts import PromptRecord
from rankserve.trainer.evaluation.sentence_embeddings import embed


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
    return _cross_validated(_linear(), [record.prompt for record in records], records, folds, seed)


def minilm_scores(
    train: Sequence[PromptRecord], records: Sequence[PromptRecord], folder: Path
) -> NDArray[np.float64]:
    """Frozen MiniLM embeddings, ridge on the log of the mean length; float64 [records].

    Args:
        train: what the ridge learns from.
        records: what is scored.
        folder: the encoder, see ``sentence_embeddings.minilm_folder``.
    """
    fitted = _on_embeddings().fit(embed([record.prompt for record in train], folder), _targets(train))
    predicted: NDArray[np.float64] = fitted.predict(embed([record.prompt for record in records], folder))
    return -predicted


def minilm_scores_cross_validated(
    records: Sequence[PromptRecord], folder: Path, folds: int = 5, seed: int = 0
) -> NDArray[np.float64]:
    """The same, each prompt scored by a ridge trained on the other folds; float64 [records]."""
    embeddings = embed([record.prompt for record in records], folder)
    return _cross_validated(_on_embeddings(), embeddings, records, folds, seed)


def _cross_validated(
    estimator: Any, inputs: Any, records: Sequence[PromptRecord], folds: int, seed: int
) -> NDArray[np.float64]:
    splits = KFold(min(folds, len(records)), shuffle=True, random_state=seed)
    predicted: NDArray[np.float64] = cross_val_predict(estimator, inputs, _targets(records), cv=splits)
    return -predicted


def _linear() -> Pipeline:
    return make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), Ridge(alpha=1.0))


def _on_embeddings() -> RidgeCV:
    return RidgeCV(alphas=np.logspace(-2, 2, 9))


def _targets(records: Sequence[PromptRecord]) -> NDArray[np.float64]:
    return np.log([record.mean_length for record in records])
