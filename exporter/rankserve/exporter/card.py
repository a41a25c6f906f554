"""The model card of a version: what it is, what it learnt from, how good it is and where it stops."""

from collections.abc import Sequence

from rankserve.exporter.agreement import Agreement
from rankserve.records.ranker_version import RankerManifest

_PRECISIONS = {
    "int8": "int8 (weights a column, activations a token; meant for CPUs)",
    "fp16": "fp16 (meant for GPUs)",
    "fp32": "fp32",
}


def model_card(manifest: RankerManifest, validation: Sequence[Agreement]) -> str:
    """Markdown for README.md of the version.

    Args:
        manifest: of the version, its sha256 not needed.
        validation: how well the published model orders each validation set.
    """
    metrics = manifest.metrics
    data = manifest.training_data or ("not stated",)
    side = "end" if manifest.truncation_side == "left" else "beginning"
    lines = [
        f"# {manifest.name}, version {manifest.version}",
        "",
        "A RankServe ranker: it scores a prompt so that prompts with short answers score high. A scheduler "
        "serves the highest score first, which lowers mean latency where requests queue.",
        "",
        f"* Base model: {manifest.base_model}",
        f"* Format: ONNX, {_PRECISIONS[manifest.precision]}",
        f"* Reads: the {side} of a prompt, up to {manifest.max_length} tokens",
        f"* Licence: {manifest.licence or 'not stated'}",
        f"* Made: {manifest.created_at} with "
        + ", ".join(f"{package} {version}" for package, version in manifest.versions.items()),
        "",
        "## Training data",
        "",
        *(f"* {name}" for name in data),
        "",
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
        f"{metrics['parity_max_difference']:.1e}. Batch mates change the order of "
        f"{metrics['rank_flips_in_batches']:.3%} of prompt pairs.",
    ]
    if "kendall_tau_test" in metrics:
        lines += [
            "",
            "Those prompts also chose the checkpoint. On the test split, which chose nothing: "
            f"{metrics['kendall_tau_test']:.3f} (as trained).",
        ]
    lines += [
        "",
        "## Limits",
        "",
        "* It knows the prompts and the LLM it was trained on. Other traffic, another LLM, another system "
        "prompt or another language can order much worse: measure with `rankserve evaluate`, and train on "
        "your own.",
        "* It predicts an order. Expected token counts come from a calibration on validation prompts and are "
        "rough; scores of different versions are not comparable.",
        "* A prompt can be worded to look short. Share the queue fairly among tenants, and bound the wait.",
        "",
        "## Intended use",
        "",
        "Ordering requests in an LLM serving queue. Not for judging prompts, answers or people.",
        "",
    ]
    return "\n".join(lines)
