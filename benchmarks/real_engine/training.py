"""A ranker for the LLM from the lengths that were collected, and how well it orders prompts held out."""

from collections.abc import Mapping
from pathlib import Path

from benchmarks.real_engine.collection import SPLIT
from benchmarks.real_engine.command import rankserve
from benchmarks.real_engine.order import Numbers, Order, advantage, another_sample, ceiling, order
from benchmarks.real_engine.places import ROOT, Places

from rankserve.records.active_pointer import read_active
from rankserve.records.manifest_checks import read_version
from rankserve.records.prompts import PromptRecord, read_prompts, split_of
from rankserve.records.ranker_version import version_numbers
from rankserve.server.ranking.repository import bundled_repository
from rankserve.server.ranking.session import OnnxScorer
from rankserve.trainer.evaluation.baselines import linear_scores, prompt_length_scores
from rankserve.trainer.evaluation.metrics import lengths_matrix

CONFIG = ROOT / "benchmarks" / "configs" / "real_engine.toml"
RANKER = "smollm2"


def train(places: Places, precision: str) -> None:
    """Trains and exports the ranker; an interrupted run goes on, and what is finished is not made again.

    Raises:
        subprocess.CalledProcessError: a command of RankServe failed, and has said why.
    """
    if not (places.run / "metrics.json").exists():
        again = ["--resume"] if (places.run / "checkpoints").exists() else []
        rankserve("train", "--config", CONFIG, "--output", places.run, *again)
    if not _is_exported(places):
        target = ("--repository", places.models, "--name", RANKER, "--activate")
        rankserve("export", places.run, *target, "--precision", precision)


def _is_exported(places: Places) -> bool:
    """The run may have been trained anew since."""
    trained = (places.run / "metrics.json").stat().st_mtime
    numbers = version_numbers(places.models, RANKER)
    return bool(numbers) and ranker_version(places).stat().st_mtime >= trained


def ranker_version(places: Places) -> Path:
    """The newest version of the ranker."""
    return places.models / RANKER / str(version_numbers(places.models, RANKER)[-1])


def held_out(places: Places) -> list[PromptRecord]:
    """The prompts that nothing was trained, chosen or calibrated on."""
    return [record for record in read_prompts(places.lengths) if split_of(record.id, SPLIT) == "test"]


def orders(places: Places, source: Path) -> Mapping[str, Order]:
    """How well the held-out prompts are ordered, by name of what orders them.

    Args:
        places: of lengths and ranker.
        source: the file that the prompts are from, with another LLM's lengths.
    """
    test = held_out(places)
    train = [record for record in read_prompts(places.lengths) if split_of(record.id, SPLIT) == "train"]
    others = {record.id: record.mean_length for record in read_prompts(source)}
    prompts = [record.prompt for record in test]
    lengths = lengths_matrix(test)
    ours, shipped = (_score(version, prompts) for version in (ranker_version(places), _shipped()))
    return {
        "this ranker, as served": order(ours, lengths),
        "the ranker that ships": order(shipped, lengths),
        "the difference of these two": advantage(ours, shipped, lengths),
        "prompt length": order(prompt_length_scores(test), lengths),
        "TF-IDF + ridge on the same training prompts": order(linear_scores(train, test), lengths),
        "mean length of another LLM's answers": order([-others[record.id] for record in test], lengths),
        "another answer to the prompt": another_sample(lengths),
        f"mean of the {lengths.shape[1] - 1} other answers (ceiling)": ceiling(lengths),
    }


def _score(version: Path, prompts: list[str]) -> Numbers:
    """As the server does."""
    return OnnxScorer(version, read_version(version)).score(prompts)


def _shipped() -> Path:
    repository = bundled_repository()
    active = read_active(repository)
    if active is None:
        raise FileNotFoundError(f"{repository} has no active version")
    name, number = active
    return repository / name / str(number)
