"""Rankers for the data sets, and their scores of the held-out prompts."""

import subprocess
import sys
from pathlib import Path

import numpy as np
from benchmarks.experiments.bench import Bench
from benchmarks.experiments.prompts import DataSet, Numbers, Prompts, replayed_lengths, token_counts

from rankserve.progress import stage
from rankserve.records.manifest_checks import read_version
from rankserve.records.prompts import PromptRecord, read_prompts, split_of
from rankserve.records.ranker_version import MODEL, version_numbers
from rankserve.server.ranking.calibration import expected_tokens
from rankserve.server.ranking.session import OnnxScorer
from rankserve.trainer.evaluation.baselines import linear_scores, prompt_length_scores
from rankserve.trainer.evaluation.metrics import kendall_tau


def held_out(bench: Bench, data_set: DataSet) -> Prompts:
    """The scored test prompts of a data set, from the cache where they are scored already.

    Trains and exports a ranker first if the repository has none: half an hour on two cores.
    """
    cached = bench.output / "scores" / f"{data_set.name}.npz"
    if not cached.exists():
        score_held_out(bench, data_set, ranker_version(bench, data_set)).save(cached)
    return Prompts.load(cached)


def ranker_version(bench: Bench, data_set: DataSet) -> Path:
    """The newest version of the data set's ranker; trained and exported if there is none."""
    if not version_numbers(bench.repository, data_set.name):
        run = bench.output / "runs" / data_set.name
        if not (run / "metrics.json").exists():
            rankserve("train", "--config", data_set.name, "--output", run)
        rankserve("export", run, "--repository", bench.repository, "--name", data_set.name)
    newest = version_numbers(bench.repository, data_set.name)[-1]
    return bench.repository / data_set.name / str(newest)


def score_held_out(bench: Bench, data_set: DataSet, version: Path) -> Prompts:
    """Scores the test split with the exported ONNX model, as the server does."""
    manifest = read_version(version)
    if manifest.calibration is None:
        raise ValueError(f"{version} has no calibration: export it with validation prompts")
    every = list(read_prompts(bench.data / "lengths" / data_set.file, model=data_set.model))
    test = [record for record in every if split_of(record.id) == "test"]
    with stage(f"scoring {len(test):,} held-out prompts of {data_set.name}"):
        scores = OnnxScorer(version, manifest).score([record.prompt for record in test])
    calibrated = np.array([expected_tokens(manifest.calibration, score) for score in scores.tolist()])
    lengths = [record.output_lengths for record in test]
    samples = min(map(len, lengths))
    return Prompts(
        ids=np.array([record.id for record in test]),
        prompt_tokens=token_counts(test),
        output_tokens=replayed_lengths(test),
        other_tokens=np.array([list(each[-samples:-1]) for each in lengths], np.int64),
        score=scores,
        expected_tokens=calibrated[:, 0],
        expected_tokens_p90=calibrated[:, 1],
        ranker=f"{manifest.name}/{manifest.version} {manifest.sha256[MODEL][:12]}",
        tau=_taus(scores, test, [record for record in every if split_of(record.id) == "train"]),
    )


def _taus(scores: Numbers, test: list[PromptRecord], train: list[PromptRecord]) -> dict[str, float]:
    replayed = replayed_lengths(test)
    others = np.array([record.output_lengths[:-1] for record in test], np.float64)
    orders = {
        "this ranker": scores,
        "prompt length": prompt_length_scores(test),
        "TF-IDF + ridge, same split": linear_scores(train, test),
    }
    if others.shape[1]:
        orders["another sample of the prompt"] = -others[:, -1]
        orders[f"mean of the {others.shape[1]} other samples (ceiling)"] = -others.mean(axis=1)
    return {name: kendall_tau(order, replayed) for name, order in orders.items()}


def rankserve(*arguments: object) -> None:
    """Runs a command of RankServe; its output goes to stderr."""
    command = [sys.executable, "-c", "from rankserve.cli.main import app; app()", *map(str, arguments)]
    subprocess.run(command, check=True, stdout=sys.stderr)
