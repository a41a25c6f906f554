"""How well rankers order held-out prompts: seeds, intervals, ceilings, baselines, int8."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.rankers.baselines import LINEAR, baseline_scores
from benchmarks.rankers.bench import Bench, Conditions, relative
from benchmarks.rankers.held_out import HeldOut, held_out
from benchmarks.rankers.models import describe
from benchmarks.rankers.runs import Run, trained
from benchmarks.rankers.tau import Numbers, Tau, advantage, tau
from benchmarks.rankers.versions import Version, published
from numpy.typing import ArrayLike

from rankserve.progress import stage
from rankserve.trainer.config import ConfigError, TrainConfig
from rankserve.trainer.evaluation.metrics import kendall_tau


@dataclass(slots=True, frozen=True)
class Order:
    """How well something orders the test prompts.

    Attributes:
        single: against the single sample.
        mean: against the mean of all samples; None where there is one.
    """

    single: Tau
    mean: Tau | None


@dataclass(slots=True, frozen=True)
class Ranker:
    """One config's rankers, one for each seed.

    Attributes:
        config: path of the file.
        name: in the config.
        model: in words.
        is_opt: whether of the OPT architecture.
        parameters: of one.
        training_s: of each seed, as its run recorded it; of the last start where it was interrupted.
        torch: mean over seeds, in fp32.
        single_by_seed: tau against the single sample.
        over_linear: tau against the single sample, above TF-IDF + ridge.
        torch_bytes: of model.safetensors.
        int8: of the exported versions; None if one was refused.
        int8_bytes: of model.onnx, the largest.
        refused: why.
    """

    config: str
    name: str
    model: str
    is_opt: bool
    parameters: int
    training_s: tuple[float, ...]
    torch: Order
    single_by_seed: tuple[float, ...]
    over_linear: Tau
    torch_bytes: int
    int8: Order | None
    int8_bytes: int | None
    refused: str


@dataclass(slots=True, frozen=True)
class Quality:
    """Attributes:
    conditions: of the measurement.
    seeds: of the training runs.
    source: whose test split it is.
    prompts: in it.
    samples: lengths of each prompt.
    temperature: of the single sample, if known.
    ceilings: what the other samples reach against the single one, by name.
    baselines: by name.
    rankers: one for each config.
    """

    conditions: Conditions
    seeds: tuple[int, ...]
    source: str
    prompts: int
    samples: int
    temperature: float | None
    ceilings: dict[str, Tau]
    baselines: dict[str, Order]
    rankers: tuple[Ranker, ...]


def run(bench: Bench, conditions: Conditions, paths: Sequence[Path]) -> Quality:
    """Trains what is missing, and measures.

    Raises:
        ConfigError: the configs hold out different prompts.
        RunError, DataError, RecordError, RankerModelError, ExportError, OSError: as of ``runs.trained`` and
            ``versions.published``.
    """
    configs = {path: [bench.load(path, seed) for seed in bench.seeds] for path in paths}
    _check_same_prompts([each[0] for each in configs.values()])
    runs = iter(trained(bench, [config for each in configs.values() for config in each]))
    judged = held_out(configs[paths[0]][0])
    with stage(f"baselines on {len(judged.test):,} test prompts"):
        baselines = baseline_scores(judged)
    rankers = [
        _ranker(bench, path, each[0], [next(runs) for _ in each], judged, baselines[LINEAR])
        for path, each in configs.items()
    ]
    return Quality(
        conditions=conditions,
        seeds=bench.seeds,
        source=judged.name,
        prompts=len(judged.test),
        samples=judged.lengths.shape[1],
        temperature=judged.temperature,
        ceilings=_ceilings(judged),
        baselines={name: _order([scores], judged) for name, scores in baselines.items()},
        rankers=tuple(rankers),
    )


def _check_same_prompts(configs: Sequence[TrainConfig]) -> None:
    def held(config: TrainConfig) -> object:
        source = next(each for each in config.sources if not each.auxiliary)
        return config.split, source.model_dump(mode="json", exclude={"name", "licence"})

    for config in configs[1:]:
        if held(config) != held(configs[0]):
            raise ConfigError(
                f"{config.name} and {configs[0].name} hold out different prompts, which makes no table: "
                "measure them one at a time"
            )


def _ranker(
    bench: Bench, path: Path, config: TrainConfig, runs: Sequence[Run], judged: HeldOut, linear: Numbers
) -> Ranker:
    rankers = [each.ranker() for each in runs]
    scores = [each.score(judged.prompts) for each in rankers]
    versions = [published(bench, each) for each in runs]
    whole = [each for each in versions if isinstance(each, Version)]
    refused = [each for each in versions if isinstance(each, str)]
    return Ranker(
        config=relative(path),
        name=config.name,
        model=describe(config.model),
        is_opt=rankers[0].model.config.model_type == "opt",
        parameters=int(runs[0].training["parameters"]),
        training_s=tuple(float(each.training["seconds"]) for each in runs),
        torch=_order(scores, judged),
        single_by_seed=tuple(kendall_tau(each, judged.single) for each in scores),
        over_linear=advantage(scores, linear, judged.single),
        torch_bytes=runs[0].torch_bytes,
        int8=None if refused else _order([each.score(judged.prompts) for each in whole], judged),
        int8_bytes=None if refused else max(each.model_bytes for each in whole),
        refused="; ".join(refused),
    )


def _order(scores: Sequence[ArrayLike], judged: HeldOut) -> Order:
    return Order(tau(scores, judged.single), None if judged.mean is None else tau(scores, judged.mean))


def _ceilings(judged: HeldOut) -> dict[str, Tau]:
    count = judged.others.shape[1]
    if not count:
        return {}
    others = [-column for column in judged.others.T]
    return {
        f"ceiling: mean of the {count} other samples": tau([-judged.others.mean(axis=1)], judged.single),
        "another sample (mean over them)": tau(others, judged.single),
    }
