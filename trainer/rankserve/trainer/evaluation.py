"""How well a ranker orders prompts, source by source, next to its ceilings and baselines."""

from collections.abc import Mapping, Sequence

from numpy.typing import ArrayLike

from rankserve.records.prompts import PromptRecord
from rankserve.trainer.baselines import linear_scores, linear_scores_cross_validated, prompt_length_scores
from rankserve.trainer.metrics import ceilings, lengths_matrix, tau_report


def assess(
    scores: ArrayLike, records: Sequence[PromptRecord], baseline_train: Sequence[PromptRecord] = ()
) -> dict[str, float]:
    """The figures of one source.

    Args:
        scores: [records]; higher = shorter answer expected.
        records: the prompts that were scored, of one LLM.
        baseline_train: what the linear baseline learns from, disjoint from ``records``; without it the
            baseline is cross-validated on ``records`` themselves.

    Returns:
        ``prompts``; ``kendall_tau`` against single samples; with several samples a prompt
        ``kendall_tau_mean``, ``ceiling_sample`` and ``ceiling_mean``; the same tau of the baselines as
        ``baseline_prompt_length`` and ``baseline_tfidf_ridge``.

    Raises:
        ValueError: fewer than two prompts.
    """
    if len(records) < 2:
        raise ValueError(f"an order needs at least 2 prompts, got {len(records)}")
    lengths = lengths_matrix(records)
    figures = {"prompts": float(len(records)), **tau_report(scores, lengths), **ceilings(lengths)}
    figures["baseline_prompt_length"] = tau_report(prompt_length_scores(records), lengths)["kendall_tau"]
    linear = (
        linear_scores(baseline_train, records) if baseline_train else linear_scores_cross_validated(records)
    )
    figures["baseline_tfidf_ridge"] = tau_report(linear, lengths)["kendall_tau"]
    return figures


def weighted_mean(by_source: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Each figure averaged over the sources by their prompts; only figures that every source has."""
    total = sum(figures["prompts"] for figures in by_source.values())
    common = set.intersection(*(set(figures) for figures in by_source.values())) - {"prompts"}
    means = {
        name: sum(figures[name] * figures["prompts"] for figures in by_source.values()) / total
        for name in sorted(common)
    }
    return {"prompts": total, **means}
