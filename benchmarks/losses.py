"""Which loss trains the best ranker: each on the same data, with the same backbone, steps and seeds.

Trains on `alpaca_vicuna7b` (Vicuna-7B's lengths of Alpaca prompts, four samples each), orders the held-out
test prompts, and writes a page of Kendall's tau against single samples and against their mean, with bootstrap
intervals over prompts, next to the ceilings and to what needs no ranker. No setting is tuned for any loss.
What was trained before is kept in --output and used again.

    python -m benchmarks.losses                                  # a small OPT, 10 losses x 1 seed
    python -m benchmarks.losses --seeds 0 1 2 --prompts 20000 --epochs 3
    python -m benchmarks.losses --config benchmarks/configs/alpaca.toml --seeds 0 1 2

Needs `pip install '.[all]'`, and the data folder beside the project or a --config of your own.
"""

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.experiments.tables import markdown, write_csv
from numpy.typing import ArrayLike, NDArray

from rankserve.client.load.machine import describe_machine, package_versions
from rankserve.progress import report_on, stage, tell
from rankserve.records.prompts import PromptRecord
from rankserve.trainer.config import ConfigError, LossConfig, TrainConfig, load_config, parse_config
from rankserve.trainer.data.loading import DataError, SourceData, load_sources
from rankserve.trainer.evaluation.assessment import MINILM_PROMPTS
from rankserve.trainer.evaluation.baselines import linear_scores, minilm_scores, prompt_length_scores
from rankserve.trainer.evaluation.bootstrap import interval, resampled_taus
from rankserve.trainer.evaluation.metrics import ceilings, lengths_matrix, tau_report
from rankserve.trainer.evaluation.sentence_embeddings import minilm_folder
from rankserve.trainer.model import RankerModelError
from rankserve.trainer.trained_ranker import TrainedRanker
from rankserve.trainer.training.run import train
from rankserve.trainer.training.run_folder import RunError

PACKAGES = ("rankserve", "torch", "transformers", "scikit-learn", "numpy")
ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data" / "lengths" / "alpaca_vicuna7b.jsonl.gz"
REFERENCE = "listmle"
_LINEAR_PROMPTS = 20_000

# Label of the row -> the loss.
LOSSES: dict[str, dict[str, Any]] = {
    "listmle-paper": {"name": "listmle", "label": "sample", "bucket_tokens": 10},
    REFERENCE: {"name": "listmle"},
    "listmle-distribution": {"name": "listmle", "label": "distribution"},
    "listnet": {"name": "listnet"},
    "approx_ndcg": {"name": "approx_ndcg"},
    "ranknet": {"name": "ranknet"},
    "ranknet-distribution": {"name": "ranknet", "label": "distribution"},
    "margin": {"name": "margin", "near_tie": 0.2},
    "log_length": {"name": "log_length"},
    "classification": {"name": "classification"},
}


@dataclass(slots=True)
class Row:
    """One way to order the test prompts, under each seed.

    Attributes:
        about: how, beside the row's name.
        figures: of ``metrics.tau_report``, by seed.
        resampled: the same of each resample of the prompts, by seed.
        seconds: of training, by seed.
    """

    about: str = ""
    figures: list[dict[str, float]] = field(default_factory=list)
    resampled: list[dict[str, NDArray[np.float64]]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def add(self, scores: ArrayLike, lengths: NDArray[np.float64]) -> None:
        self.figures.append(tau_report(scores, lengths))
        self.resampled.append(resampled_taus(scores, lengths))

    def mean(self, name: str) -> float:
        return float(np.mean([each[name] for each in self.figures]))

    def resamples(self, name: str) -> NDArray[np.float64]:
        """Of the mean over seeds [resamples]."""
        means: NDArray[np.float64] = np.mean([each[name] for each in self.resampled], axis=0)
        return means


def main() -> None:
    options = parse_options()
    torch.set_num_threads(options.threads)
    try:
        base = base_config(options)
        source = next(each for each in load_sources(base, options.output / "data") if not each.auxiliary)
        lengths = lengths_matrix(source.test)
        rankers = train_all(base, source.test, lengths, options)
    except (ConfigError, DataError, RankerModelError, RunError, OSError) as error:
        sys.exit(f"error: {error}")
    with stage("orders without a ranker"):
        others = without_ranker(source, lengths)
    page = render(base, source, lengths, rankers, others, options)
    options.page.write_text(page, encoding="utf-8")
    write_csv(options.output / "losses.csv", csv_rows(rankers, options.seeds))
    print(page)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, help="train as this file says, but for the loss and the seed")
    parser.add_argument("--backbone", help="instead of an OPT of 2 layers x 128, or of the config's")
    parser.add_argument("--epochs", type=int, help="default: 2, or the config's")
    parser.add_argument("--prompts", type=int, default=6000, help="without --config: so many of the data set")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=list(LOSSES), metavar="LOSS")
    parser.add_argument("--data", type=Path, default=DATA, help="alpaca_vicuna7b.jsonl.gz")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--output", type=Path, default=ROOT / "out" / "losses", help="run folders, CSV")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "losses.md")
    return parser.parse_args()


def base_config(options: argparse.Namespace) -> TrainConfig:
    """What all losses have in common."""
    if options.config is not None:
        config = load_config(options.config)
    else:
        source = {"kind": "file", "name": "alpaca_vicuna7b", "licence": "CC-BY-NC-4.0"}
        document = {
            "name": "losses",
            "sources": [{**source, "path": str(options.data.resolve()), "limit": options.prompts}],
            "model": {"max_length": 128, "mini": {"layers": 2, "hidden_size": 128, "heads": 2}},
            "optimisation": {
                "epochs": 2,
                "learning_rate": 1e-3,
                "schedule": "cosine",
                "max_tokens_per_forward": 1024,
            },
        }
        config = parse_config(document, origin=ROOT / "benchmarks" / "losses.toml")
    if options.backbone is not None:
        shapes = {"mini": None, "transplant": None}
        model = config.model.model_copy(update={"backbone": options.backbone, **shapes})
        config = config.model_copy(update={"model": model})
    if options.epochs is not None:
        optimisation = config.optimisation.model_copy(update={"epochs": options.epochs})
        config = config.model_copy(update={"optimisation": optimisation})
    return config


def train_all(
    base: TrainConfig,
    test: Sequence[PromptRecord],
    lengths: NDArray[np.float64],
    options: argparse.Namespace,
) -> dict[str, Row]:
    rankers = {name: Row(describe(LOSSES[name])) for name in options.losses}
    with stage("all losses", len(rankers) * len(options.seeds), "rankers") as training:
        for name, row in rankers.items():
            loss = LossConfig.model_validate(LOSSES[name])
            for seed in options.seeds:
                config = base.model_copy(update={"name": f"{name}-{seed}", "seed": seed, "loss": loss})
                folder = options.output / config.name
                metrics = train(config, folder, resume=True, baselines=False)
                row.add(TrainedRanker.load(folder).score([record.prompt for record in test]), lengths)
                row.seconds.append(metrics["training"]["seconds"])
                training.advance(note=f"{name}, seed {seed}: test tau {row.figures[-1]['kendall_tau']:.4f}")
                tell(training.position())
    return rankers


def without_ranker(source: SourceData, lengths: NDArray[np.float64]) -> dict[str, Row]:
    """What a ranker has to beat, by row; MiniLM where it is installed."""
    learnt_from = tuple(source.train.sample(_LINEAR_PROMPTS))
    rows = {"length of the prompt": Row(), "TF-IDF + ridge": Row()}
    rows["length of the prompt"].add(prompt_length_scores(source.test), lengths)
    rows["TF-IDF + ridge"].add(linear_scores(learnt_from, source.test), lengths)
    if (folder := minilm_folder()) is not None:
        few = tuple(source.train.sample(MINILM_PROMPTS))
        rows["frozen MiniLM + ridge"] = Row(f"from {len(few):,} training prompts")
        rows["frozen MiniLM + ridge"].add(minilm_scores(few, source.test, folder), lengths)
    return rows


def describe(loss: Mapping[str, Any]) -> str:
    """The loss's options, and the label where it is not the mean."""
    label = {"sample": "first sample", "distribution": "all samples"}.get(loss.get("label", ""), "mean")
    options = [f"{key} {value}" for key, value in loss.items() if key not in ("name", "label")]
    return ", ".join([label, *options])


def cell(row: Row, name: str) -> str:
    if name not in row.figures[0]:
        return ""
    low, high = interval(row.resamples(name))
    return f"{row.mean(name):.3f} ({low:.3f} to {high:.3f})"


def difference(row: Row, reference: Row) -> str:
    """In tau against single samples, compared resample by resample."""
    if row is reference:
        return "-"
    low, high = interval(row.resamples("kendall_tau") - reference.resamples("kendall_tau"))
    gained = row.mean("kendall_tau") - reference.mean("kendall_tau")
    return f"{gained:+.3f} ({low:+.3f} to {high:+.3f})"


def render(
    base: TrainConfig,
    source: SourceData,
    lengths: NDArray[np.float64],
    rankers: Mapping[str, Row],
    others: Mapping[str, Row],
    options: argparse.Namespace,
) -> str:
    reference = rankers.get(REFERENCE, next(iter(rankers.values())))
    compared = REFERENCE if REFERENCE in rankers else next(iter(rankers))
    header = [
        "",
        "label",
        "tau, single samples",
        "tau, mean of the samples",
        f"against {compared}",
        "train, s",
    ]
    table = [
        [
            name,
            row.about,
            cell(row, "kendall_tau"),
            cell(row, "kendall_tau_mean"),
            difference(row, reference),
            f"{np.mean(row.seconds):.0f}" if row.seconds else "",
        ]
        for name, row in {**rankers, **others}.items()
    ]
    names = {"ceiling_sample": "another sample", "ceiling_mean": "ceiling: mean of the other samples"}
    for name, tau in ceilings(lengths).items():
        table.append([names[name], "", f"{tau:.3f}", "", "", ""])
    seeds = f"one seed, {options.seeds[0]}, so small differences may be those between seeds"
    between = ""
    if len(options.seeds) > 1:
        seeds = f"means over seeds {', '.join(map(str, options.seeds))}"
        spreads = [np.ptp([each["kendall_tau"] for each in row.figures]) for row in rankers.values()]
        between = f" Between seeds of one loss tau differs by up to {max(spreads):.3f}."
    versions = ", ".join(f"{name} {value}" for name, value in package_versions(PACKAGES).items())
    optimisation = base.optimisation
    epochs = f"{optimisation.epochs} epoch{'s' if optimisation.epochs > 1 else ''}"
    return f"""# Losses

Which loss trains the best ranker, all else alike. This page is written by the command below; do not edit it.

    {command()}

Kendall's tau-b on {len(source.test):,} held-out prompts of {source.name}, with 95 % bootstrap intervals over
the prompts; {seeds}.{between} Trained on {len(source.train):,} prompts, {epochs} of lists
of {optimisation.list_size}, learning rate {optimisation.learning_rate:g}, {shape(base)}. No setting was tuned
for any loss. The checkpoint is the best on the validation split; these figures are of the test split. What
each loss is: `rankserve.trainer.losses`.

{markdown(header, table)}
{describe_machine()}; {versions}; threads of torch: {options.threads}. Seconds are
those of a machine that may have been busy.
"""


def shape(config: TrainConfig) -> str:
    model = config.model
    if model.transplant is not None:
        return f"backbone `{model.backbone}` of layers {', '.join(map(str, model.transplant.layers))}"
    if model.mini is None:
        return f"backbone `{model.backbone}`"
    return f"backbone `{model.backbone}` of {model.mini.layers} layers x {model.mini.hidden_size}"


def command() -> str:
    return shlex.join(["python", "-m", "benchmarks.losses", *sys.argv[1:]])


def csv_rows(rankers: Mapping[str, Row], seeds: Sequence[int]) -> list[dict[str, object]]:
    return [
        {"loss": name, "seed": seed, **figures, "seconds": seconds}
        for name, row in rankers.items()
        for seed, figures, seconds in zip(seeds, row.figures, row.seconds, strict=True)
    ]


if __name__ == "__main__":
    with report_on(sys.stderr):
        main()
