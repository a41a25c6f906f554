"""The model card of a version: what it is, what it learnt from, how good it is and where it stops."""

from collections.abc import Sequence

from rankserve.exporter.agreement import Agreement
from rankserve.records.ranker_version import Coverage, RankerManifest

_PRECISIONS = {
    "int8": "int8 (weights a column, activations a token; meant for CPUs)",
    "fp16": "fp16 (meant for GPUs)",
    "fp32": "fp32",
}
_TEST_FIGURES = {
    "kendall_tau_test": "this ranker",
    "test_kendall_tau_mean": "this ranker, against a prompt's mean length",
    "test_ceiling_sample": "ceiling: another answer of the same prompt",
    "test_ceiling_mean": "ceiling: the mean of the other answers",
    "test_baseline_prompt_length": "baseline: length of the prompt",
    "test_baseline_tfidf_ridge": "baseline: linear model (TF-IDF, ridge)",
    "test_baseline_minilm": "baseline: MiniLM",
}


def model_card(manifest: RankerManifest, validation: Sequence[Agreement]) -> str:
    """Markdown for README.md of the version.

    Args:
        manifest: of the version, its sha256 not needed.
        validation: how well the published model orders each validation set.
    """
    return "\n".join(
        [
            *_description(manifest),
            *_order(manifest, validation),
            *_test(manifest),
            *_expected_lengths(manifest.coverage),
            *_LIMITS,
        ]
    )


def _description(manifest: RankerManifest) -> list[str]:
    side = "end" if manifest.truncation_side == "left" else "beginning"
    optimized = f", graph optimised to {manifest.optimization}" if manifest.optimization else ""
    return [
        f"# {manifest.name}, version {manifest.version}",
        "",
        "A RankServe ranker: it scores a prompt so that prompts with short answers score high. A scheduler "
        "serves the highest score first, which lowers mean latency where requests queue.",
        "",
        f"* Base model: {manifest.base_model}",
        f"* Format: ONNX, {_PRECISIONS[manifest.precision]}{optimized}",
        f"* Reads: the {side} of a prompt, up to {manifest.max_length} tokens",
        f"* Licence: {manifest.licence or 'not stated'}",
        f"* Made: {manifest.created_at} with "
        + ", ".join(f"{package} {version}" for package, version in manifest.versions.items()),
        "",
        "## Intended use",
        "",
        "Ordering requests in an LLM serving queue. Not for judging prompts, answers or people.",
        "",
        "## Training data",
        "",
        *(f"* {name}" for name in manifest.training_data or ("not stated",)),
        "",
    ]


def _order(manifest: RankerManifest, validation: Sequence[Agreement]) -> list[str]:
    metrics = manifest.metrics
    lines = [
        "## How well it orders",
        "",
        "Kendall's tau-b between scores and single answers' lengths, on the prompts that the export was "
        "checked with. The ceiling is what the mean of a prompt's other answers reaches.",
        "",
        "| data | prompts | tau | ceiling |",
        "|---|---|---|---|",
        *(
            f"| {each.source or 'validation'} | {each.prompts} | {each.tau:.3f} | "
            f"{'one answer a prompt: unknown' if each.ceiling is None else f'{each.ceiling:.3f}'} |"
            for each in validation
        ),
        "",
        f"Before conversion to {manifest.precision} (fp32): {metrics['kendall_tau_fp32']:.4f}, after: "
        f"{metrics['kendall_tau']:.4f}. The fp32 ONNX graph differs from torch by at most "
        f"{metrics['parity_max_difference']:.1e}. Conversion reorders "
        f"{metrics['rank_flips_against_fp32']:.3%} of prompt pairs, batch mates "
        f"{metrics['rank_flips_in_batches']:.3%}.",
        "",
    ]
    if manifest.optimization:
        lines[-1:] = [
            f"Graph optimisation {manifest.optimization} moves a score by at most "
            f"{metrics['optimization_max_difference']:.1e} and reorders "
            f"{metrics['optimization_rank_flips']:.3%} of pairs.",
            "",
        ]
    return lines


def _test(manifest: RankerManifest) -> list[str]:
    rows = [
        f"| {what} | {manifest.metrics[name]:.3f} |"
        for name, what in _TEST_FIGURES.items()
        if name in manifest.metrics
    ]
    if not rows:
        return []
    return [
        "Those prompts also chose the checkpoint. On the test split, which chose nothing (as trained, before "
        "conversion):",
        "",
        "| | tau |",
        "|---|---|",
        *rows,
        "",
    ]


def _expected_lengths(coverage: Coverage | None) -> list[str]:
    if coverage is None:
        return []
    lines = [
        "## Expected lengths",
        "",
        "A calibration gives each score an expected output length: half of the answers should be at or below "
        f"p50, nine in ten at or below p90. On {coverage.prompts} validation prompts ({coverage.answers} "
        f"answers), each judged by a calibration fitted to the others: **p50 covers {coverage.p50:.1%}, p90 "
        f"{coverage.p90:.1%}**.",
        "",
        "| prompts by score | at or below p50 | at or below p90 |",
        "|---|---|---|",
        *(
            f"| {group} of {len(coverage.p50_by_score)}{_END.get(group, '')} | {p50:.1%} | {p90:.1%} |"
            for group, (p50, p90) in enumerate(
                zip(coverage.p50_by_score, coverage.p90_by_score, strict=True), start=1
            )
        ),
        "",
    ]
    if coverage.censored:
        lines += [
            f"{coverage.censored} of the answers were cut off at a limit, so that they are known to be at "
            "least so long: expected lengths near that limit are lower bounds, and so is the coverage there.",
            "",
        ]
    return lines


_END = {1: " (longest expected)"}
_LIMITS = (
    "## Limits",
    "",
    "* It knows the prompts and the LLM it was trained on. Other traffic, another LLM, another system "
    "prompt or another language can order much worse: measure with `rankserve evaluate`, and train on "
    "your own.",
    "* It predicts an order. Expected lengths hold on average over prompts like those above, not for one "
    "prompt; scores of different versions are not comparable.",
    "* A prompt can be worded to look short. Share the queue fairly among tenants, and bound the wait.",
    "",
)
