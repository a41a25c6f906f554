"""How fast and how faithfully an exported ranker scores real prompts, against Hugging Face eager fp32.

One core, the same weights, one process: all ways of scoring take turns and the table shows medians, so that a
busy machine slows them alike. Read the ratios, not the prompts per second. Every way starts from prompts as
text and ends with scores, tokenizer included. Prints Markdown.

    rankserve export RUN --repository MODELS --name NAME
    python benchmarks/scoring_speed.py RUN MODELS/NAME/1
    python benchmarks/scoring_speed.py RUN MODELS/NAME/1 --workload prompts.jsonl --json

Needs `pip install '.[all]'` and prompts with output lengths: the held-out split of `alpaca_vicuna7b` in the
data folder, or --workload.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

# One core: before anything starts its threads.
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")

import numpy as np
import numpy.typing as npt
import onnxruntime
import tokenizers
import torch
import transformers

from rankserve.client.load.machine import describe_machine
from rankserve.exporter.agreement import discordant_share, kendall_tau
from rankserve.exporter.graph import export_graph
from rankserve.exporter.session import GraphScorer
from rankserve.exporter.source import RankerSource, read_source
from rankserve.exporter.tokenization import encode, pad, read_tokenizer
from rankserve.progress import report_on, track
from rankserve.records.prompts import PromptRecord, read_prompts, split_of
from rankserve.records.ranker_version import TOKENIZER, read_manifest
from rankserve.server.ranking.micro_batcher import MicroBatcher
from rankserve.server.ranking.session import OnnxScorer
from rankserve.trainer.model import RankerModel

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "lengths" / "alpaca_vicuna7b.jsonl.gz"
EAGER = "Hugging Face eager fp32, padded batches of 32, arrival order"
EXPORTED = "exported version, batches of 64 as the server packs them"
BATCHED = "the same through the micro-batcher, 256 clients"
ALONE = "exported version, one prompt at a time"
AUTHORS_BATCH = 32
SERVER_BATCH = 64
CLIENTS = 256
FLIP_COMPOSITIONS = 5

Scores = npt.NDArray[np.float64]
Score = Callable[[Sequence[str]], Scores]


@dataclass(slots=True, frozen=True)
class Way:
    """One way of scoring all prompts.

    Attributes:
        name: for the table.
        prompts_per_s: median over the repetitions.
        ratio: of it to Hugging Face eager, median of the ratios within a repetition.
    """

    name: str
    prompts_per_s: float
    ratio: float


@dataclass(slots=True, frozen=True)
class Alone:
    """Latency of one prompt scored alone, in milliseconds."""

    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float


def main() -> None:
    options = parse_options()
    torch.set_num_threads(1)
    records = read_records(options)
    texts = [record.prompt for record in records]
    source = read_source(options.run)
    manifest = read_manifest(options.version)
    scorer = OnnxScorer(options.version, manifest)
    model = RankerModel.from_pretrained(source.model)
    tokenizer = read_tokenizer(options.version / TOKENIZER)
    fp32 = GraphScorer(export_graph(model, max_length=source.max_length), source.pad_token_id)

    def tokens(prompts: Sequence[str]) -> list[list[int]]:
        return encode(tokenizer, source, prompts)

    ways: dict[str, Score] = {
        EAGER: lambda prompts: eager(model, tokens(prompts), range(len(prompts)), source),
        "Hugging Face eager fp32, padded batches of 32, sorted by length": lambda prompts: eager(
            model, rows := tokens(prompts), by_length(rows), source
        ),
        "ONNX fp32, batches of similar length": lambda prompts: fp32.score(tokens(prompts)),
        ALONE: lambda prompts: np.array([scorer.score([prompt])[0] for prompt in prompts]),
        EXPORTED: lambda prompts: in_batches(scorer, prompts),
        BATCHED: lambda prompts: asyncio.run(through_the_micro_batcher(scorer, prompts)),
    }
    scores = {name: ways[name](texts) for name in track(ways, "scoring every prompt", "ways")}
    report = {
        "run": str(options.run),
        "version": f"{manifest.name}/{manifest.version} {manifest.precision}",
        "megabytes": model_size(options.version),
        "machine": machine(),
        "prompts": describe_lengths([len(row) for row in tokens(texts)]),
        "seed": options.seed,
        "cpu_time": options.cpu_time,
        "repetitions": options.repetitions,
        "prompts_a_repetition": min(options.prompts, len(texts)),
        "ways": [asdict(way) for way in race(ways, texts, options)],
        "micro_batcher_share": share_of(ways, texts, options),
        "alone": asdict(alone(scorer.score, texts, options)),
        "alone_without_tokenizer": asdict(alone_without_tokenizer(options.version, tokens(texts), options)),
        **quality(scores, records),
        **batch_mates(scorer, texts, scores[ALONE], options.seed),
    }
    print(json.dumps(report) if options.json else render(report))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="run folder of `rankserve train`, or a checkpoint folder")
    parser.add_argument("version", type=Path, help="version folder that `rankserve export` made of it")
    parser.add_argument("--workload", type=Path, help="JSONL of prompts with lengths, all of them taken")
    parser.add_argument("--prompts", type=int, default=512, help="drawn for the timing")
    parser.add_argument("--repetitions", type=int, default=7, help="turns of each way")
    parser.add_argument("--seed", type=int, default=0, help="of the draw and of the batch compositions")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="count this process's CPU time in the table of ways, for a core shared with others; latencies "
        "and the micro-batcher's share stay in wall time",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


def read_records(options: argparse.Namespace) -> list[PromptRecord]:
    """In random order: that is what arrival order means here."""
    if options.workload is not None:
        records = list(read_prompts(options.workload))
    elif DATA.exists():
        records = [record for record in read_prompts(DATA) if split_of(record.id) == "test"]
    else:
        sys.exit(f"no prompts at {DATA}: say where prompts with output lengths are with --workload FILE")
    order = np.random.default_rng(options.seed).permutation(len(records))
    return [records[index] for index in order]


def eager(
    model: RankerModel, rows: Sequence[list[int]], order: Sequence[int], source: RankerSource
) -> Scores:
    scores = np.empty(len(rows))
    for at in range(0, len(rows), AUTHORS_BATCH):
        batch = list(order[at : at + AUTHORS_BATCH])
        inputs = map(torch.from_numpy, pad([rows[index] for index in batch], source.pad_token_id))
        with torch.inference_mode():
            scores[batch] = model(*inputs).numpy()
    return scores


def by_length(rows: Sequence[list[int]]) -> list[int]:
    return sorted(range(len(rows)), key=lambda index: len(rows[index]))


def in_batches(scorer: OnnxScorer, prompts: Sequence[str]) -> Scores:
    batches = [prompts[at : at + SERVER_BATCH] for at in range(0, len(prompts), SERVER_BATCH)]
    return np.concatenate([scorer.score(batch) for batch in batches])


async def through_the_micro_batcher(scorer: OnnxScorer, prompts: Sequence[str]) -> Scores:
    """Clients that each send the next prompt once the last is scored: enough of them to keep it busy."""
    batcher = MicroBatcher(scorer.score, max_batch=SERVER_BATCH, timeout_ms=60_000.0)
    scores = np.empty(len(prompts))
    waiting = iter(enumerate(prompts))

    async def client() -> None:
        for index, prompt in waiting:
            scores[index] = await batcher.score(prompt)

    async with asyncio.TaskGroup() as clients:
        for _ in range(CLIENTS):
            clients.create_task(client())
    await batcher.aclose()
    return scores


def race(ways: dict[str, Score], texts: list[str], options: argparse.Namespace) -> list[Way]:
    sample = texts[: options.prompts]
    clock = time.process_time if options.cpu_time else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in track(range(options.repetitions), "timing", "turns"):
        for name, score in ways.items():
            seconds[name].append(timed(score, sample, clock))
    return [
        Way(
            name,
            prompts_per_s=len(sample) / statistics.median(taken),
            ratio=statistics.median(base / own for base, own in zip(seconds[EAGER], taken, strict=True)),
        )
        for name, taken in seconds.items()
    ]


def share_of(ways: dict[str, Score], texts: list[str], options: argparse.Namespace) -> float:
    """Throughput through the micro-batcher as a share of the bare session's, in turns of their own."""
    sample = texts[: options.prompts]
    shares = [
        timed(ways[EXPORTED], sample) / timed(ways[BATCHED], sample)
        for _ in track(range(3 * options.repetitions), "timing the micro-batcher", "turns")
    ]
    return statistics.median(shares)


def timed(score: Score, prompts: Sequence[str], clock: Callable[[], float] = time.perf_counter) -> float:
    started = clock()
    score(prompts)
    return clock() - started


def alone(score: Score, texts: list[str], options: argparse.Namespace) -> Alone:
    return latencies([timed(score, [text]) for text in texts[: options.prompts]])


def alone_without_tokenizer(version: Path, rows: list[list[int]], options: argparse.Namespace) -> Alone:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    settings.enable_mem_pattern = False
    session = onnxruntime.InferenceSession(
        version / "model.onnx", settings, providers=["CPUExecutionProvider"]
    )
    seconds = []
    for row in rows[: options.prompts]:
        input_ids, attention_mask = pad([row], 0)
        started = time.perf_counter()
        session.run(["score"], {"input_ids": input_ids, "attention_mask": attention_mask})
        seconds.append(time.perf_counter() - started)
    return latencies(seconds)


def latencies(seconds: list[float]) -> Alone:
    p50, p90, p99 = np.percentile(seconds, [50, 90, 99]) * 1e3
    mean, longest = statistics.fmean(seconds) * 1e3, max(seconds) * 1e3
    return Alone(mean, float(p50), float(p90), float(p99), longest)


def quality(scores: dict[str, Scores], records: list[PromptRecord]) -> dict[str, object]:
    """Kendall's tau-b against the last answer, and against the mean of all, of each way."""
    single = [record.output_lengths[-1] for record in records]
    mean = [record.mean_length for record in records]
    taus = {
        name: {"single": kendall_tau(each, single), "mean": kendall_tau(each, mean)}
        for name, each in scores.items()
    }
    return {
        "tau": taus,
        "tau_lost": taus[EAGER]["single"] - taus[EXPORTED]["single"],
        "pairs_reordered_against_eager": discordant_share(scores[EAGER], scores[EXPORTED]),
    }


def batch_mates(scorer: OnnxScorer, texts: list[str], apart: Scores, seed: int) -> dict[str, object]:
    """What random compositions of batches do to scores, against each prompt alone."""
    generator = np.random.default_rng(seed)
    flips, moves = [], []
    for _ in track(range(FLIP_COMPOSITIONS), "random batches", "compositions"):
        order = generator.permutation(len(texts))
        together = np.empty(len(texts))
        at = 0
        while at < len(order):
            batch = order[at : at + int(generator.integers(1, SERVER_BATCH + 1))]
            together[batch] = scorer.score([texts[index] for index in batch])
            at += len(batch)
        flips.append(discordant_share(apart, together))
        moves.append(float(np.abs(apart - together).max()))
    return {"rank_flips": max(flips), "largest_move": max(moves), "compositions": FLIP_COMPOSITIONS}


def machine() -> str:
    packages = (torch, transformers, onnxruntime, tokenizers, np)
    versions = ", ".join(f"{package.__name__} {package.__version__}" for package in packages)
    return f"{describe_machine()}; {versions}"


def describe_lengths(lengths: list[int]) -> str:
    p50, p90, p99 = np.percentile(lengths, [50, 90, 99])
    return (
        f"{len(lengths)} prompts of {statistics.fmean(lengths):.1f} tokens in the mean "
        f"(p50 {p50:.0f}, p90 {p90:.0f}, p99 {p99:.0f}, max {max(lengths)})"
    )


def model_size(version: Path) -> float:
    return sum(file.stat().st_size for file in version.iterdir()) / 1e6


def render(report: dict[str, object]) -> str:
    ways, taus = report["ways"], report["tau"]
    assert isinstance(ways, list)
    assert isinstance(taus, dict)
    lines = [
        f"{report['version']}, {report['megabytes']:.1f} MB; {report['prompts']}; {report['machine']}; seed "
        f"{report['seed']}, {'CPU' if report['cpu_time'] else 'wall'} time, medians of "
        f"{report['repetitions']} turns of {report['prompts_a_repetition']} prompts",
        "",
        "| way of scoring, tokenizer included | prompts/s | against eager | tau, one answer | tau, mean |",
        "|---|---|---|---|---|",
    ]
    for way in ways:
        tau = taus[way["name"]]
        lines.append(
            f"| {way['name']} | {way['prompts_per_s']:.0f} | {way['ratio']:.1f} | {tau['single']:.4f} "
            f"| {tau['mean']:.4f} |"
        )
    lines += ["", "| one prompt alone | mean ms | p50 | p90 | p99 | max |", "|---|---|---|---|---|---|"]
    for label, key in (("with tokenizer", "alone"), ("without", "alone_without_tokenizer")):
        latency = report[key]
        assert isinstance(latency, dict)
        lines.append(f"| {label} | " + " | ".join(f"{value:.2f}" for value in latency.values()) + " |")
    lines += [
        "",
        f"Micro-batcher: {report['micro_batcher_share']:.0%} of the bare session's throughput. Tau lost to "
        f"eager: {report['tau_lost']:.4f}; pairs reordered: {report['pairs_reordered_against_eager']:.3%}. "
        f"Batch mates, worst of {report['compositions']} random compositions: {report['rank_flips']:.4%} of "
        f"pairs reordered, largest move of a score {report['largest_move']:.1e}.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    with report_on(sys.stderr):
        main()
