"""Writes each experiment's files, and docs/results.md from them."""

import platform
import shutil
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.experiments import plots
from benchmarks.experiments.bench import Bench, Section
from benchmarks.experiments.tables import write_csv

from rankserve.client.load.machine import describe_machine

PACKAGES = ("rankserve", "numpy", "numba", "scipy", "onnxruntime", "onnxruntime-gpu")

INTRODUCTION = """# Results

What scheduling by predicted length gains and costs, measured on simulated engines: the scheduler decides as
the server's does, the prompts, answer lengths, arrivals and ranker scores are real where a section says so,
and step times are sums of measured GPU kernels. No figure here was measured on a GPU; how closely the
simulation follows a real vLLM is the matter of `benchmarks/fidelity.py`.

This page is written by `python -m benchmarks.experiments all`; do not edit it. Figures are means over seeds
with 95 % t-intervals. *s/token* is normalised latency: E2E latency / output tokens, the paper's metric.
*Capacity* is the rate at which an engine serves these requests when it never lacks any. FCFS runs through
the same code as all others. "The paper" is Fu et al., *Efficient LLM Scheduling by Learning to Rank*,
NeurIPS 2024.

How well rankers order prompts, what that costs, and how they do on prompts and LLMs that they were not
trained for is in [Rankers](rankers.md); which loss trains the best one in [Losses](losses.md).
"""


def write_section(bench: Bench, name: str, title: str, section: Section) -> list[Path]:
    """NAME.csv, NAME.md and NAME.png in the output folder."""
    paths = [bench.output / f"{name}.{suffix}" for suffix in ("csv", "md", "png")]
    write_csv(paths[0], section.rows)
    paths[1].write_text(render(bench, name, title, section), encoding="utf-8")
    plots.save(section.figure, paths[2])
    return paths


def render(bench: Bench, name: str, title: str, section: Section) -> str:
    seeds = ", ".join(map(str, bench.seeds))
    return (
        f"## {title}\n\n`python -m benchmarks.experiments {name}`\n\n{section.shows}\n\n"
        f"![{title}](figures/{name}.png)\n\n*In the paper:* {section.paper}\n\n*Setting:* {section.setting}"
        f" Seeds {seeds}. {machine()}\n\n{section.tables}"
    )


def machine() -> str:
    """What the figures were computed on and with."""
    versions = [f"Python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return f"{describe_machine()}; {', '.join(versions)}."


def write_page(bench: Bench, names: Sequence[str], page: Path) -> None:
    """The page from what the experiments wrote, and its plots into ``figures/`` beside it.

    Raises:
        FileNotFoundError: an experiment has not been run.
    """
    figures = page.with_name("figures")
    figures.mkdir(parents=True, exist_ok=True)
    sections = []
    for name in names:
        source = bench.output / f"{name}.md"
        if not source.exists():
            raise FileNotFoundError(
                f"{source} is missing: run `python -m benchmarks.experiments {name}` first"
            )
        sections.append(source.read_text(encoding="utf-8"))
        shutil.copyfile(source.with_suffix(".png"), figures / f"{name}.png")
    page.write_text("\n".join([INTRODUCTION, *sections]), encoding="utf-8")
