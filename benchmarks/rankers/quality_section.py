"""The section on quality in Markdown."""

from benchmarks.experiments.tables import markdown
from benchmarks.rankers.baselines import LINEAR
from benchmarks.rankers.estimate import duration
from benchmarks.rankers.quality import Order, Quality

TITLE = "Quality"
MEGABYTE = 1e6
SMALL_BYTES = 25 * MEGABYTE


def render(quality: Quality) -> str:
    """The section in Markdown."""
    return (
        f"{_shows(quality)}\n\n{_setting(quality)}\n\n{_order_table(quality)}\n{_size_table(quality)}"
        + "".join(
            f"\n{each.name} was not exported: {each.refused}\n" for each in quality.rankers if each.refused
        )
    )


def _shows(quality: Quality) -> str:
    ceiling = next(iter(quality.ceilings.values()), None)
    parts = []
    for kind, chosen in (
        ("OPT", [each for each in quality.rankers if each.is_opt]),
        ("ranker of any backbone", list(quality.rankers)),
    ):
        small = [each for each in chosen if each.int8_bytes is not None and each.int8_bytes <= SMALL_BYTES]
        best = max(small, key=lambda each: each.int8.single.value if each.int8 else 0.0, default=None)
        if best is None or best.int8 is None:
            parts.append(f"No {kind} of at most {SMALL_BYTES / MEGABYTE:.0f} MB was exported.")
            continue
        chosen_by = f" (of {len(small)}, by this very figure)" if len(small) > 1 else ""
        parts.append(
            f"The best {kind} of at most {SMALL_BYTES / MEGABYTE:.0f} MB, `{best.name}`{chosen_by}, orders "
            f"the single sample with tau {best.int8.single} in int8, {best.over_linear.value:+.3f} "
            f"({best.over_linear.low:+.3f} to {best.over_linear.high:+.3f}) over {LINEAR} in fp32"
            + (f", {best.int8.single.value / ceiling.value:.0%} of the ceiling." if ceiling else ".")
        )
    return " ".join(parts)


def _setting(quality: Quality) -> str:
    temperature = (
        "the last sample"
        if quality.temperature is None
        else f"the sample at temperature {quality.temperature:g}, the highest"
    )
    samples = (
        f"The single sample is {temperature} of {quality.samples}; *mean* is the mean of all of them. "
        if quality.samples > 1
        else ""
    )
    return (
        f"*Setting:* {quality.prompts:,} test prompts of {quality.source}, held out by the hash of their "
        f"ids. {samples}Means over seeds {', '.join(map(str, quality.seeds))}; in brackets the 95 % "
        "bootstrap interval of that mean over prompts (the same resamples for all). It does not hold how "
        "seeds differ: that is in a column of its own. Baselines learn from the whole training split. A "
        f"checkpoint is chosen on the validation split. {quality.conditions}"
    )


def _order_table(quality: Quality) -> str:
    rows = [
        [
            f"**{each.name}**: {each.model}",
            *_cells(each.torch),
            ", ".join(f"{value:.3f}" for value in each.single_by_seed),
            *(_cells(each.int8) if each.int8 else ("refused", "")),
        ]
        for each in quality.rankers
    ]
    rows += [[name, *_cells(order), "", "", ""] for name, order in quality.baselines.items()]
    rows += [[name, str(ceiling), "", "", "", ""] for name, ceiling in quality.ceilings.items()]
    return markdown(
        [
            "Kendall's tau-b",
            "single sample",
            "mean of samples",
            "single sample, by seed",
            "int8, single sample",
            "int8, mean of samples",
        ],
        rows,
    )


def _cells(order: Order) -> tuple[str, str]:
    return str(order.single), "" if order.mean is None else str(order.mean)


def _size_table(quality: Quality) -> str:
    return markdown(
        ["", "config", "parameters", "torch file", "int8 file", "training, by seed", f"tau over {LINEAR}"],
        [
            [
                f"**{each.name}**",
                f"`{each.config}`",
                f"{each.parameters / 1e6:.1f} M",
                _megabytes(each.torch_bytes),
                "refused" if each.int8_bytes is None else _megabytes(each.int8_bytes),
                ", ".join(map(duration, each.training_s)),
                str(each.over_linear),
            ]
            for each in quality.rankers
        ],
    )


def _megabytes(size: int) -> str:
    return f"{size / MEGABYTE:.1f} MB"
