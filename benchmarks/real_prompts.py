"""What ranking gains on real prompts with real output lengths, end to end.

Trains a ranker on `alpaca_vicuna7b` (17,971 prompts, four Vicuna-7B samples each; auxiliary lengths from
text-davinci-003 on other Alpaca prompts), exports it, and replays the held-out test prompts with a recorded
length against real server processes that drive the simulated LLM, under FCFS, ranking, aged ranking and the
oracle, at loads below, at and above its capacity. Prints Markdown.

    python benchmarks/real_prompts.py                 # train, export, replay: about 40 minutes on 2 cores
    python benchmarks/real_prompts.py --run RUN       # with a run folder of `rankserve train`

Needs `pip install '.[all]'` and the data folder (--data). The prompts are CC BY-NC 4.0.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from statistics import geometric_mean

import numpy as np

from rankserve.cli.policy_runs import run_policies
from rankserve.client.evaluation import build_report
from rankserve.client.evaluation.as_markdown import render
from rankserve.client.load import Poisson
from rankserve.progress import report_on, track
from rankserve.records.prompts import read_prompts, split_of
from rankserve.records.results import Run, write_run
from rankserve.records.workload import WorkloadRecord, read_workload
from rankserve.server.scheduling.policies import AgedRanking
from rankserve.trainer.evaluation.baselines import linear_scores, prompt_length_scores
from rankserve.trainer.evaluation.metrics import kendall_tau

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data" / "lengths" / "alpaca_vicuna7b.jsonl.gz"
POLICIES = ("fcfs", "ranking", "bounded_ranking", "aged_ranking", "sjf")


def main() -> None:
    options = parse_options()
    if not options.data.exists():
        sys.exit(f"no data at {options.data}: say where alpaca_vicuna7b.jsonl.gz is with --data")
    options.output.mkdir(parents=True, exist_ok=True)
    run = options.run or options.output / "run"
    if not (run / "metrics.json").exists():
        rankserve("train", "--config", ROOT / "benchmarks" / "configs" / "alpaca.toml", "--output", run)
    repository = options.output / "models"
    export = rankserve("export", run, "--repository", repository, "--name", "alpaca-vicuna7b", "--json")
    version = json.loads(export)["version"]
    workload = [r for r in read_workload(options.data) if split_of(r.id) == "test"][: options.requests]
    server_options = {
        "repository": repository,
        "ranker": "alpaca-vicuna7b",
        "ranker_version": version,
        "profile": options.profile,
        "max_sequences": options.max_sequences,
        "time_scale": options.time_scale,
        # The server counts waiting in wall-clock seconds: the default rate, in simulated ones.
        "ageing_tokens_per_s": AgedRanking().ageing_tokens_per_s * options.time_scale,
    }
    runs: list[Run] = []
    for rate in track(options.rates, "all loads", "loads"):
        runs += replay(workload, rate, server_options, options)
    print_order(options.data, runs[0])


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DATA, help="alpaca_vicuna7b.jsonl.gz")
    parser.add_argument("--run", type=Path, help="a trained run folder; default: train one")
    parser.add_argument("--output", type=Path, default=ROOT / "out" / "real_prompts", help="results go here")
    parser.add_argument("--profile", default="a100-llama3-8b", help="simulated LLM")
    parser.add_argument("--max-sequences", type=int, default=64, help="batch cap")
    parser.add_argument(
        "--rates", type=float, nargs="+", default=[20.0, 40.0, 60.0], help="requests per simulated second"
    )
    parser.add_argument("--requests", type=int, default=2000, help="at most this many held-out prompts")
    parser.add_argument("--time-scale", type=float, default=2.0, help="simulated seconds in one of ours")
    parser.add_argument("--seed", type=int, default=0, help="of the arrivals")
    return parser.parse_args()


def rankserve(*arguments: object) -> str:
    """Runs a command of RankServe and returns its stdout; its progress goes to stderr."""
    command = [sys.executable, "-c", "from rankserve.cli.main import app; app()", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def print_order(data: Path, run: Run) -> None:
    """How well the served scores order the replayed sample, between baselines and ceiling."""
    prompts = list(read_prompts(data))
    train = [p for p in prompts if split_of(p.id) == "train"]
    held_out = {p.prompt for p in prompts} - {p.prompt for p in train}
    auxiliary = [
        p
        for p in read_prompts(data.with_name("alpaca_davinci003.jsonl.gz"))
        if split_of(p.id) == "train" and p.prompt not in held_out
    ]
    # The other LLM answers more briefly; the linear model must not take that for the prompts' doing.
    ratio = geometric_mean(p.mean_length for p in train) / geometric_mean(p.mean_length for p in auxiliary)
    auxiliary = [replace(p, output_lengths=(round(p.mean_length * ratio) or 1,)) for p in auxiliary]
    by_id = {p.id: p for p in prompts}
    results = [r for r in run.results if r.score is not None and r.outcome == "finished"]
    test = [by_id[r.id] for r in results]
    lengths = np.array([p.output_lengths for p in test])
    replayed = lengths[:, -1]
    print(f"\n## Order of {len(test)} held-out prompts\n")
    print("| ordered by | Kendall's tau-b against the replayed sample |\n|---|---|")
    for label, scores in (
        ("prompt length", prompt_length_scores(test)),
        ("TF-IDF + ridge, trained on the same split", linear_scores(train, test)),
        ("TF-IDF + ridge, with the auxiliary lengths too", linear_scores(train + auxiliary, test)),
        ("**this ranker**, as served", [r.score or 0.0 for r in results]),
        ("another sample of the prompt", -lengths[:, -2]),
        ("mean of the three other samples (ceiling)", -lengths[:, :-1].mean(axis=1)),
    ):
        print(f"| {label} | {kendall_tau(scores, replayed):.3f} |")


def replay(
    workload: list[WorkloadRecord],
    rate: float,
    server_options: dict[str, object],
    options: argparse.Namespace,
) -> list[Run]:
    """One load: all policies on the same arrivals."""
    runs = run_policies(
        POLICIES,
        workload,
        Poisson(rate * options.time_scale, options.seed),
        server_options,
        workload_name=f"alpaca_vicuna7b, {len(workload)} held-out prompts",
    )
    for policy, run in zip(POLICIES, runs, strict=True):
        write_run(options.output / f"{rate:g}-{policy}.jsonl.gz", run.header, run.results)
    print(f"\n## {rate:g} requests per simulated second\n")
    print(render(build_report(runs)), flush=True)
    return runs


if __name__ == "__main__":
    with report_on(sys.stderr):
        main()
