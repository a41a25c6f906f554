"""How rankers do on prompts and LLMs that they were not trained for: tau by train set and test set."""

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from benchmarks.rankers.bench import Bench, Conditions, relative
from benchmarks.rankers.held_out import HeldOut, held_out
from benchmarks.rankers.models import describe
from benchmarks.rankers.runs import Run, trained
from benchmarks.rankers.tau import Tau, tau

from rankserve.progress import stage
from rankserve.trainer.config import TrainConfig
from rankserve.trainer.data.loading import normalised
from rankserve.trainer.data.sources import DataError, read_source
from rankserve.trainer.evaluation.baselines import linear_scores


@dataclass(slots=True, frozen=True)
class Cell:
    """Attributes:
    train: name of the set that was trained on.
    test: of the set whose test split was ordered.
    prompts: that were ordered.
    left_out: test prompts that were trained on, by their text without case and white space.
    ranker: its tau.
    linear: that of TF-IDF + ridge, trained on the same prompts.
    """

    train: str
    test: str
    prompts: int
    left_out: int
    ranker: Tau
    linear: Tau


@dataclass(slots=True, frozen=True)
class TransferSet:
    """Attributes:
    name: of the set.
    train: prompts that its ranker was trained on.
    test: prompts in its test split.
    ceiling: tau of the mean of a prompt's other samples; None where there is one sample.
    category: tau of the mean length of a prompt's category in the training split, which is all that a
        ranker of this set needs to know for it; None where prompts have no category.
    """

    name: str
    train: int
    test: int
    ceiling: Tau | None
    category: Tau | None


@dataclass(slots=True, frozen=True)
class Transfer:
    """Attributes:
    conditions: of the measurement.
    config: path of the recipe.
    model: in words.
    epochs: of training.
    max_length: in tokens.
    seed: of the training runs.
    sets: in the order of the config.
    cells: every train set with every test set.
    """

    conditions: Conditions
    config: str
    model: str
    epochs: int
    max_length: int
    seed: int
    sets: tuple[TransferSet, ...]
    cells: tuple[Cell, ...]

    def cell(self, train: str, test: str) -> Cell:
        return next(each for each in self.cells if (each.train, each.test) == (train, test))


def run(bench: Bench, conditions: Conditions, path: Path) -> Transfer:
    """Trains what is missing, and measures.

    Raises:
        ConfigError, RunError, DataError, RecordError, RankerModelError, OSError: as of ``runs.trained``.
    """
    seed = bench.seeds[0]
    recipe = bench.load(path, seed)
    configs = one_each(recipe)
    runs = trained(bench, configs)
    sets = [held_out(config) for config in configs]
    cells = []
    for run_, learnt in zip(runs, sets, strict=True):
        with stage(f"scoring all test prompts with the ranker of {learnt.name}"):
            cells += _row(run_, learnt, sets)
    return Transfer(
        conditions=conditions,
        config=relative(path),
        model=describe(recipe.model),
        epochs=recipe.optimisation.epochs,
        max_length=recipe.model.max_length,
        seed=seed,
        sets=tuple(_described(config, each) for config, each in zip(configs, sets, strict=True)),
        cells=tuple(cells),
    )


def one_each(recipe: TrainConfig) -> list[TrainConfig]:
    """The recipe with each of its sources alone."""
    return [
        recipe.model_copy(update={"name": f"{recipe.name}-{source.name}", "sources": [source]})
        for source in recipe.sources
    ]


def _row(run: Run, learnt: HeldOut, sets: list[HeldOut]) -> list[Cell]:
    ranker = run.ranker()
    known = {normalised(record.prompt) for record in learnt.train}
    cells = []
    for tested in sets:
        fresh = [i for i, prompt in enumerate(tested.prompts) if normalised(prompt) not in known]
        if len(fresh) < 2:
            raise DataError(
                f"{learnt.name} has all test prompts of {tested.name} but {len(fresh)}: leave one out"
            )
        records = [tested.test[i] for i in fresh]
        lengths = tested.single[fresh]
        cells.append(
            Cell(
                train=learnt.name,
                test=tested.name,
                prompts=len(fresh),
                left_out=len(tested.test) - len(fresh),
                ranker=tau([ranker.score([record.prompt for record in records])], lengths),
                linear=tau([linear_scores(learnt.train, records)], lengths),
            )
        )
    return cells


def _described(config: TrainConfig, each: HeldOut) -> TransferSet:
    return TransferSet(each.name, len(each.train), len(each.test), _ceiling(each), _by_category(config, each))


def _by_category(config: TrainConfig, each: HeldOut) -> Tau | None:
    """Training's own files hold no category, so the source is read again."""
    [source] = config.sources
    categories = {record.id: record.category for record in read_source(source)}
    if len(set(categories.values())) < 2:
        return None
    lengths: dict[str, list[float]] = {}
    for record in each.train:
        lengths.setdefault(categories[record.id], []).append(record.mean_length)
    overall = fmean(length for all_ in lengths.values() for length in all_)
    means = {category: fmean(all_) for category, all_ in lengths.items()}
    return tau([[-means.get(categories[record.id], overall) for record in each.test]], each.single)


def _ceiling(each: HeldOut) -> Tau | None:
    return tau([-each.others.mean(axis=1)], each.single) if each.others.shape[1] else None
