"""Results as JSON in the output folder, and docs/rankers.md from them."""

from pathlib import Path

from benchmarks.experiments import plots
from benchmarks.rankers import cost_section, quality_section, transfer_section
from benchmarks.rankers.bench import Bench
from benchmarks.rankers.cost import Cost
from benchmarks.rankers.quality import Quality
from benchmarks.rankers.transfer import Transfer
from pydantic import TypeAdapter, ValidationError

Results = Quality | Cost | Transfer

# In the page's order.
KINDS: dict[str, type[Results]] = {
    "quality": Quality,
    "cost": Cost,
    "transfer": Transfer,
}
FIGURE = "quality_against_cost.png"

INTRODUCTION = """# Rankers

How well rankers order real prompts by the lengths of real answers, what that costs, and how far it carries
over. *tau* is Kendall's tau-b between the negated score and the output length: 1 if higher scores always had
shorter answers, 0 if unrelated. Answers to one prompt differ from sample to sample, so none reaches 1: read
each beside its ceiling.

This page is written by `python -m benchmarks.rankers page` from what the commands below left in `out/`; do
not edit it. The prompts are no part of RankServe; rankers trained on Alpaca's are CC BY-NC 4.0
and never ship.
"""
TRIAL = (
    "> **A trial (`--quick`) on a few hundred prompts: it proves the steps, and its figures mean nothing.**"
)


class PageError(ValueError):
    """There is nothing to write a page from. The message says what to run."""


def save(bench: Bench, name: str, results: Results) -> Path:
    """Writes NAME.json into the output folder."""
    path = _file(bench, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(TypeAdapter(KINDS[name]).dump_json(results, indent=2) + b"\n")
    return path


def load(bench: Bench, name: str) -> Results:
    """Reads it.

    Raises:
        FileNotFoundError: that section was not run.
        PageError: it was written by another version of the benchmark.
    """
    path = _file(bench, name)
    try:
        results: Results = TypeAdapter(KINDS[name]).validate_json(path.read_bytes())
    except ValidationError as error:
        raise PageError(
            f"{path} is not what `{name}` writes now ({error.error_count()} problems): run it again"
        ) from None
    return results


def render(results: Results) -> str:
    """One section in Markdown."""
    if isinstance(results, Quality):
        title, text = quality_section.TITLE, quality_section.render(results)
    elif isinstance(results, Cost):
        shown, _, tables = cost_section.render(results).partition("\n\n")
        title, text = cost_section.TITLE, f"{shown}\n\n![{cost_section.TITLE}](figures/{FIGURE})\n\n{tables}"
    else:
        title, text = transfer_section.TITLE, transfer_section.render(results)
    trial = f"{TRIAL}\n\n" if results.conditions.quick else ""
    return f"## {title}\n\n`{results.conditions.command}`\n\n{trial}{text}"


def write_page(bench: Bench, page: Path) -> list[str]:
    """Writes the page from the sections that were run, with the plot into ``figures/`` beside it.

    Returns:
        Names of the sections that it lacks.

    Raises:
        PageError: none was run, or one by another version of the benchmark.
    """
    found = {name: load(bench, name) for name in KINDS if _file(bench, name).exists()}
    if not found:
        raise PageError(
            f"{bench.output} holds no results: run `python -m benchmarks.rankers {'`, `'.join(KINDS)}` first"
        )
    page.parent.mkdir(parents=True, exist_ok=True)
    measured = found.get("cost")
    if isinstance(measured, Cost):
        figures = page.with_name("figures")
        figures.mkdir(exist_ok=True)
        plots.save(cost_section.draw(measured), figures / FIGURE)
    page.write_text("\n".join([INTRODUCTION, *map(render, found.values())]), encoding="utf-8")
    return [name for name in KINDS if name not in found]


def _file(bench: Bench, name: str) -> Path:
    return bench.output / f"{name}.json"
