"""The sections of docs/rankers.md, with rankers that nobody trained."""

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from benchmarks.rankers import cost, quality, transfer
from benchmarks.rankers.__main__ import main
from benchmarks.rankers.bench import Bench, Conditions
from benchmarks.rankers.page import TRIAL, PageError, Results, load, render, save, write_page
from benchmarks.rankers.timing import Speed
from benchmarks.rankers.versions import Version
from numpy.typing import NDArray
from support.toy_ranker import publish

from rankserve.records.ranker_version import read_manifest
from rankserve.trainer.config import ConfigError, TrainConfig

PROMPTS = 300
SETS = ("chat", "other-chat", "exam")
WORDS = ("one", "two", "three", "four")
SPEED = Speed(100.0, 200.0, 50.0, (40.0, 60.0))

Run = Callable[[Bench], Results]


def words_of(prompts: Sequence[str]) -> NDArray[np.float64]:
    return np.array([len(prompt.split()) for prompt in prompts], dtype=np.float64)


class KnowingRanker:
    """Prompts of many words have long answers, except in exams."""

    model = SimpleNamespace(config=SimpleNamespace(model_type="opt"))

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def score(self, prompts: Sequence[str]) -> NDArray[np.float64]:
        words = words_of(prompts)
        return -words + np.random.default_rng(self._seed).normal(0, 2, len(words))


class KnowingRun:
    torch_bytes = 90_000_000

    def __init__(self, config: TrainConfig) -> None:
        self.folder = Path(f"{config.name}-seed{config.seed}")
        self.training = {"parameters": 1_000_000, "seconds": 60.0}
        self._seed = config.seed

    def ranker(self) -> KnowingRanker:
        return KnowingRanker(self._seed)


def write_set(path: Path, name: str) -> None:
    """Longer prompts have longer answers, in exams shorter ones. The two chats share their prompts."""
    draw = np.random.default_rng(SETS.index(name))
    with gzip.open(path, "wt", encoding="utf-8") as file:
        for i in range(PROMPTS):
            words = i % 37 + 1
            mean = 400 - 10 * words if name == "exam" else 10 * words
            lengths = [int(each) for each in np.maximum(draw.normal(mean, 40, 4), 1)]
            text = " ".join(
                [name.removeprefix("other-"), str(i), *(WORDS[(i + n) % 4] for n in range(words))]
            )
            # Ids of their own, so that a prompt of the one's test split may be in the other's training split.
            record = {"id": f"{name}{i}", "prompt": text, "lengths": lengths, "category": ""}
            if name == "exam":
                record["category"] = "long" if words < 19 else "short"
            file.write(json.dumps({**record, "temperatures": [0.0, 0.3, 0.5, 0.7]}) + "\n")


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    """chat.toml, of one set, and all.toml, of all three."""
    for names, file in ((SETS[:1], "chat.toml"), (SETS, "all.toml")):
        sources = "".join(
            f'[[sources]]\nkind = "file"\nname = "{name}"\nlicence = "none"\npath = "{name}.jsonl.gz"\n'
            for name in names
        )
        (tmp_path / file).write_text(f'name = "{file.removesuffix(".toml")}"\n{sources}', encoding="utf-8")
    for name in SETS:
        write_set(tmp_path / f"{name}.jsonl.gz", name)
    return tmp_path


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "out", tmp_path / "runs", (0, 1), quick=False)


@pytest.fixture(autouse=True)
def untrained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that know the answer, an exported version that counts tokens, and times that nobody measured."""
    folder = publish(tmp_path / "models", max_length=64)
    version = Version(folder, read_manifest(folder))

    def published(_: Bench, run: KnowingRun) -> Version | str:
        return "it orders nothing" if "opt-2x128" in run.folder.name else version

    def timed(contenders: dict[str, object], *_: object) -> dict[str, Speed]:
        return dict.fromkeys(contenders, SPEED)

    for module in (quality, cost, transfer):
        monkeypatch.setattr(module, "trained", lambda _, configs: [KnowingRun(each) for each in configs])
    for module in (quality, cost):
        monkeypatch.setattr(module, "published", published)
    monkeypatch.setattr(cost, "measure_on_one_core", timed)
    monkeypatch.setattr(
        quality, "baseline_scores", lambda judged: {"TF-IDF + ridge": np.arange(float(len(judged.test)))}
    )


def conditions(bench: Bench) -> Conditions:
    return Conditions.now(bench, ["quality"])


@pytest.fixture
def measured_quality(bench: Bench, configs: Path) -> quality.Quality:
    return quality.run(bench, conditions(bench), [configs / "chat.toml"])


@pytest.fixture
def measured_cost(bench: Bench, configs: Path) -> cost.Cost:
    return cost.run(bench, conditions(bench), configs / "chat.toml", [], "opt-4x256")


@pytest.fixture
def measured_transfer(bench: Bench, configs: Path) -> transfer.Transfer:
    return transfer.run(bench, conditions(bench), configs / "all.toml")


def test_quality_is_that_of_all_seeds(measured_quality: quality.Quality) -> None:
    [ranker] = measured_quality.rankers
    assert len(ranker.single_by_seed) == len(ranker.training_s) == 2
    assert ranker.torch.single.value == pytest.approx(np.mean(ranker.single_by_seed))
    assert ranker.torch.mean is not None
    assert ranker.torch.mean.value > ranker.torch.single.value
    assert ranker.int8 is not None
    # The exported one counts without noise.
    assert ranker.int8.single.value > ranker.torch.single.value
    linear = measured_quality.baselines["TF-IDF + ridge"].single.value
    assert ranker.over_linear.value == pytest.approx(ranker.torch.single.value - linear)
    ceiling = measured_quality.ceilings["ceiling: mean of the 3 other samples"]
    assert ceiling.value > measured_quality.ceilings["another sample (mean over them)"].value


def test_the_section_on_quality_says_what_it_measured(measured_quality: quality.Quality) -> None:
    text = render(measured_quality)
    [ranker] = measured_quality.rankers
    for stated in (
        str(ranker.torch.single),
        "temperature 0.7, the highest of 4",
        "seeds 0, 1",
        "The best OPT of at most 25 MB is `chat`: in int8 it orders",
        "90.0 MB",
        "1.0 M",
        "60 s, 60 s",
        f"{measured_quality.prompts} test prompts of chat",
    ):
        assert stated in text


def test_configs_that_hold_out_different_prompts_make_no_table(bench: Bench, configs: Path) -> None:
    other = configs / "other.toml"
    other.write_text(
        (configs / "chat.toml").read_text().replace("chat.jsonl", "exam.jsonl"), encoding="utf-8"
    )
    with pytest.raises(ConfigError, match="hold out different prompts"):
        quality.run(bench, conditions(bench), [configs / "chat.toml", other])


def test_a_refused_export_is_shown_and_neither_timed_nor_drawn(measured_cost: cost.Cost) -> None:
    assert measured_cost.refused == {"opt-2x128": "it orders nothing"}
    assert "opt-2x128" not in {each.name for each in measured_cost.sizes}
    text = render(measured_cost)
    assert "opt-2x128 was not exported: it orders nothing" in text
    assert "**opt-4x256** (default)" in text
    assert "linear: TF-IDF + ridge" in text


def test_a_default_that_is_no_size_is_refused(bench: Bench, configs: Path) -> None:
    with pytest.raises(ConfigError, match=r"--default opt-9x9 is none of the sizes: chat, opt-6x384"):
        cost.run(bench, conditions(bench), configs / "chat.toml", [], "opt-9x9")


def test_transfer_leaves_out_what_was_trained_on(measured_transfer: transfer.Transfer) -> None:
    assert [(each.train, each.test) for each in measured_transfer.cells] == [
        (train, test) for train in SETS for test in SETS
    ]
    tests = {each.name: each.test for each in measured_transfer.sets}
    for each in measured_transfer.cells:
        assert each.left_out + each.prompts == tests[each.test]
        # The chats share all prompts: four in five of the other's test split were trained on.
        shared = {each.train, each.test} == {"chat", "other-chat"}
        assert (each.left_out > each.prompts) is shared
        assert shared or each.left_out == 0
    assert measured_transfer.cell("chat", "exam").ranker.value < 0 < measured_transfer.sets[2].test


def test_what_the_category_tells_is_told(measured_transfer: transfer.Transfer) -> None:
    chat, _, exam = measured_transfer.sets
    assert chat.category is None
    assert exam.category is not None
    assert exam.ceiling is not None
    assert 0.5 < exam.category.value < exam.ceiling.value
    assert f"| category alone |  |  | {exam.category} |" in render(measured_transfer)


def test_the_section_on_transfer_is_computed(measured_transfer: transfer.Transfer) -> None:
    text = render(measured_transfer)
    own = np.mean([measured_transfer.cell(name, name).ranker.value for name in SETS])
    left_out = measured_transfer.cell("chat", "other-chat")
    assert f"tau {own:.3f} on average" in text
    assert f"{left_out.left_out} of {left_out.left_out + left_out.prompts} for chat → other-chat" in text
    assert f"| ceiling | {measured_transfer.sets[0].ceiling} |" in text


def test_results_are_read_back_as_they_were(
    bench: Bench,
    measured_quality: quality.Quality,
    measured_cost: cost.Cost,
    measured_transfer: transfer.Transfer,
) -> None:
    every: dict[str, Results] = {
        "quality": measured_quality,
        "cost": measured_cost,
        "transfer": measured_transfer,
    }
    for name, results in every.items():
        save(bench, name, results)
        assert load(bench, name) == results


def test_the_page_holds_what_was_measured_and_says_what_it_lacks(
    bench: Bench, measured_cost: cost.Cost, tmp_path: Path
) -> None:
    page = tmp_path / "docs" / "rankers.md"
    with pytest.raises(PageError, match=r"holds no results: run `python -m benchmarks.rankers quality`"):
        write_page(bench, page)
    save(bench, "cost", measured_cost)
    assert write_page(bench, page) == ["quality", "transfer"]
    text = page.read_text(encoding="utf-8")
    assert "## Quality against cost" in text
    assert "figures/quality_against_cost.png" in text
    assert measured_cost.conditions.commit in text
    assert TRIAL not in text
    plot = page.parent / "figures" / "quality_against_cost.png"
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_results_of_another_version_of_the_benchmark_are_refused(bench: Bench, tmp_path: Path) -> None:
    bench.output.mkdir()
    (bench.output / "cost.json").write_text('{"base": 1}', encoding="utf-8")
    with pytest.raises(PageError, match=r"cost\.json is not what `cost` writes now .* run it again"):
        write_page(bench, tmp_path / "rankers.md")


def test_a_trial_is_marked_and_never_on_the_projects_page(
    configs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = ["--runs", str(tmp_path / "runs"), "--output", str(tmp_path / "out"), "--quick"]
    main(["transfer", "--config", str(configs / "all.toml"), *folders])
    assert TRIAL in capsys.readouterr().out
    main(["page", "--page", str(tmp_path / "rankers.md"), *folders])
    assert not (tmp_path / "rankers.md").exists()
    assert TRIAL in (tmp_path / "out" / "quick" / "rankers.md").read_text(encoding="utf-8")


def test_missing_data_ends_with_a_message(configs: Path, tmp_path: Path) -> None:
    (configs / "exam.jsonl.gz").unlink()
    with pytest.raises(SystemExit, match=r"error: source 'exam': there is no file .*exam\.jsonl\.gz"):
        main(["transfer", "--config", str(configs / "all.toml"), "--output", str(tmp_path / "out")])
