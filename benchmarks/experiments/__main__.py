"""The experiments behind docs/results.md. A name runs that one; "all" runs each and writes the page.

    python -m benchmarks.experiments all          # from the project's root; some minutes on 2 cores
    python -m benchmarks.experiments latency      # out/experiments/latency.{csv,md,png}
    python -m benchmarks.experiments page         # docs/results.md and docs/figures from what is in out/

The first run trains and exports three rankers (half an hour each on 2 cores) unless --ranker-repository has
them, and keeps their scores. Needs `pip install '.[all]'` and the data folder (--data).
"""

import argparse
import sys
import time
from pathlib import Path

from benchmarks.experiments import batch_cap, burst, frontier, latency, samples, starvation, tau, trace
from benchmarks.experiments.bench import DATA, OUTPUT, PAGE, Bench
from benchmarks.experiments.page import machine, write_page, write_section

from rankserve.progress import duration, report_on, tell
from rankserve.records.cpu import available_cores

# In the page's order.
EXPERIMENTS = {
    "latency": latency,
    "tau": tau,
    "frontier": frontier,
    "starvation": starvation,
    "samples": samples,
    "burst": burst,
    "trace": trace,
    "batch_cap": batch_cap,
}


def main() -> None:
    options = parse_options()
    bench = Bench(
        data=options.data,
        output=options.output,
        repository=options.ranker_repository or options.output / "models",
        seeds=tuple(range(options.seeds)),
        scale=options.scale,
        threads=options.threads,
    )
    bench.output.mkdir(parents=True, exist_ok=True)
    if not (bench.data / "lengths").is_dir():
        sys.exit(f"no data at {bench.data}: say where the folder with lengths/ and traces/ is with --data")
    tell(f"{machine()} Seeds {', '.join(map(str, bench.seeds))}.")
    names = {"all": list(EXPERIMENTS), "page": []}.get(options.experiment, [options.experiment])
    for name in names:
        started = time.monotonic()
        section = EXPERIMENTS[name].run(bench)
        paths = write_section(bench, name, EXPERIMENTS[name].TITLE, section)
        seconds = time.monotonic() - started
        tell(f"{name}: {duration(seconds)}, {', '.join(map(str, paths))}")
    if options.experiment in ("all", "page"):
        write_page(bench, list(EXPERIMENTS), options.page)
    else:
        print((bench.output / f"{options.experiment}.md").read_text(encoding="utf-8"))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.experiments",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("experiment", choices=[*EXPERIMENTS, "all", "page"])
    parser.add_argument("--seeds", type=int, default=10, help="runs of each setting, seeds 0, 1, ...")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with lengths/ and traces/")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="results, scores and rankers go here")
    parser.add_argument(
        "--ranker-repository",
        type=Path,
        help="rankers named as the recipes; default: models/ in the output folder, trained if missing",
    )
    parser.add_argument("--page", type=Path, default=PAGE, help="the page that `all` and `page` write")
    parser.add_argument("--scale", type=float, default=1.0, help="fraction of the requests, for a quick look")
    parser.add_argument("--threads", type=int, default=available_cores(), help="simulations at a time")
    return parser.parse_args()


if __name__ == "__main__":
    with report_on(sys.stderr):
        main()
