"""What quality costs: tau against microseconds per prompt, rankers of several sizes and a linear model."""

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from benchmarks.rankers import sizes
from benchmarks.rankers.bench import Bench, Conditions, relative
from benchmarks.rankers.held_out import HeldOut, held_out
from benchmarks.rankers.models import describe
from benchmarks.rankers.runs import trained
from benchmarks.rankers.tau import Tau, tau
from benchmarks.rankers.timing import Effort, Speed, measure_on_one_core
from benchmarks.rankers.versions import Version, published
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import Ridge
from sklearn.pipeline import Pipeline, make_pipeline

from rankserve.progress import stage, tell
from rankserve.trainer.config import ConfigError, load_config

EFFORT = Effort(rounds=9, alone=300)
TRIAL_EFFORT = Effort(rounds=2, alone=30)


@dataclass(slots=True, frozen=True)
class Size:
    """Attributes:
    name: of the size.
    model: in words.
    parameters: of the model; weights of the linear one.
    file_bytes: of model.onnx; of the linear model pickled.
    tau: of what was timed, against the single sample.
    speed: on one core.
    """

    name: str
    model: str
    parameters: int
    file_bytes: int
    tau: Tau
    speed: Speed


@dataclass(slots=True, frozen=True)
class Cost:
    """Attributes:
    conditions: of the measurement.
    base: path of the config that the sizes are variants of.
    seed: of the training runs.
    default: name of the size that ships.
    prompts: that were scored, the test split.
    effort: of the timing.
    sizes: those that could be exported.
    refused: why others could not, by name.
    """

    conditions: Conditions
    base: str
    seed: int
    default: str
    prompts: int
    effort: Effort
    sizes: tuple[Size, ...]
    refused: dict[str, str]


def run(bench: Bench, conditions: Conditions, base: Path, others: Sequence[Path], default: str) -> Cost:
    """Trains and exports what is missing, and measures. Sizes that ``others`` have are trained as these.

    Raises:
        ConfigError: ``default`` is none of the sizes.
        RunError, DataError, RecordError, RankerModelError, ExportError, OSError: as of ``runs.trained`` and
            ``versions.published``.
    """
    seed = bench.seeds[0]
    known = {path: load_config(path, seed=seed) for path in others}
    full = sizes.sizes(load_config(base, seed=seed), list(known.values()))
    for path, config in known.items():
        if config not in full.values():
            tell(f"{relative(path)} is none of the sizes, so its run is not used")
    configs = {name: bench.sized(config) for name, config in full.items()}
    if default not in configs:
        raise ConfigError(f"--default {default} is none of the sizes: {', '.join(configs)}")
    runs = dict(zip(configs, trained(bench, list(configs.values())), strict=True))
    exported = {name: published(bench, each) for name, each in runs.items()}
    versions = {name: each for name, each in exported.items() if isinstance(each, Version)}
    judged = held_out(configs[next(iter(configs))])
    linear = linear_model(judged)
    effort = TRIAL_EFFORT if bench.quick else EFFORT
    with stage(f"timing {len(versions) + 1} rankers on one core, {effort.rounds} rounds"):
        speeds = measure_on_one_core(
            {**{name: each.folder for name, each in versions.items()}, sizes.LINEAR: linear},
            judged.prompts,
            effort,
        )
    found = [
        Size(
            name,
            describe(configs[name].model),
            int(runs[name].training["parameters"]),
            version.model_bytes,
            tau([version.score(judged.prompts)], judged.single),
            speeds[name],
        )
        for name, version in versions.items()
    ]
    found.append(_linear_size(linear, judged, speeds[sizes.LINEAR]))
    return Cost(
        conditions=conditions,
        base=relative(base),
        seed=seed,
        default=default,
        prompts=len(judged.test),
        effort=effort,
        sizes=tuple(sorted(found, key=lambda each: each.speed.batched_us)),
        refused={name: each for name, each in exported.items() if isinstance(each, str)},
    )


def linear_model(judged: HeldOut) -> Pipeline:
    """As ``rankserve.trainer.evaluation.baselines`` fits it."""
    pipeline = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), Ridge(alpha=1.0))
    return pipeline.fit(
        [record.prompt for record in judged.train], np.log([record.mean_length for record in judged.train])
    )


def _linear_size(pipeline: Pipeline, judged: HeldOut, speed: Speed) -> Size:
    scores = -pipeline.predict(judged.prompts)
    return Size(
        sizes.LINEAR,
        "TF-IDF + ridge, scikit-learn",
        int(pipeline[-1].coef_.size),
        len(pickle.dumps(pipeline)),
        tau([scores], judged.single),
        speed,
    )
