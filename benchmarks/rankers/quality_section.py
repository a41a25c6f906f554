"""The section on quality in Markdown."""

from collections.abc import Mapping

from benchmarks.experiments.tables import markdown
from benchmarks.rankers.baselines import LINEAR
from benchmarks.rankers.estimate import duration
from benchmarks.rankers.quality import Order, Quality, Ranker
from benchmarks.rankers.tau import Tau

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
    small = {
        each.name: (each.int8.single, each)
        for each in quality.rankers
        if each.int8 is not None and each.int8_bytes is not None and each.int8_bytes <= SMALL_BYTES
    }
    limit = f"of at most {SMALL_BYTES / MEGABYTE:.0f} MB"
    opts = {name: found for name, found in small.items() if found[1].is_opt}
    if not small:
        return f"No ranker {limit} was exported."
    best = _best(small)
    if not opts:
        return f"No OPT {limit} was exported. The best ranker {limit} {_says(quality, best, len(small))}"
    best_opt = _best(opts)
    text = f"The best OPT {limit} {_says(quality, best_opt, len(opts))}"
    if best == best_opt:
        return text + (" No other backbone of that size is better." if len(small) > len(opts) else "")
    return f"{text} The best of any backbone {_says(quality, best, len(small))}"


def _best(rankers: Mapping[str, tuple[Tau, Ranker]]) -> tuple[Tau, Ranker]:
    return max(rankers.values(), key=lambda found: found[0].value)


def _says(quality: Quality, found: tuple[Tau, Ranker], among: int) -> str:
    order, ranker = found
    ceiling = next(iter(quality.ceilings.values()), None)
    over = ranker.over_linear
    chosen = f" (of {among}, by this very figure)" if among > 1 else ""
    return (
        f"is `{ranker.name}`{chosen}: in int8 it orders the single sample with tau {order}"
        + (f", {order.value / ceiling.value:.0%} of the ceiling" if ceiling else "")
        + f"; in fp32 it is {over.value:+.3f} ({over.low:+.3f} to {over.high:+.3f}) above {LINEAR}."
    )


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
    table = markdown(
        ["", "config", "parameters", "torch file", "int8 file", "training, by seed*", f"tau over {LINEAR}"],
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
    return f"{table}\n\\* wall time; runs may have shared the machine with each other and with other work\n"


def _megabytes(size: int) -> str:
    return f"{size / MEGABYTE:.1f} MB"
