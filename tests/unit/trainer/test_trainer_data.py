import builtins
import hashlib
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from rankserve.records.jsonl import RecordError
from rankserve.records.prompts import PromptRecord, normalised, split_of
from rankserve.trainer.config import FileSource, HubSource, SyntheticSource, TrainConfig
from rankserve.trainer.data.lists import ListDataset, RankedList, RankedPrompt
from rankserve.trainer.data.loading import load_sources
from rankserve.trainer.data.sources import DataError, read_source

DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data"


def file_source(path: Path, lines: list[str], **settings: Any) -> FileSource:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return FileSource(kind="file", name=path.stem, licence="MIT", path=path, **settings)


def test_a_source_is_split_by_id_and_nothing_held_out_is_trained_on(tmp_path: Path) -> None:
    lines = [
        json.dumps({"id": f"r{i}", "prompt": f"prompt {i % 150}", "output_tokens": i + 1}) for i in range(300)
    ]
    config = TrainConfig(name="x", sources=[file_source(tmp_path / "a.jsonl", lines)])
    [source] = load_sources(config, tmp_path / "run")
    for name, records in (("train", source.train), ("validation", source.validation), ("test", source.test)):
        assert records
        assert {split_of(record.id) for record in records} == {name}
    trained_on = {record.prompt for record in source.train}
    assert not [record for record in source.validation + source.test if record.prompt in trained_on]


def test_no_prompt_that_validation_holds_is_tested_on(tmp_path: Path) -> None:
    lines = [
        json.dumps({"id": f"r{i}", "prompt": f"{'pP'[i % 2]}rompt {i // 4}", "output_tokens": i + 1})
        for i in range(800)
    ]
    others = [json.dumps({"id": f"o{i}", "prompt": f"prompt {i}", "output_tokens": 9}) for i in range(300)]
    config = TrainConfig(
        name="x",
        sources=[file_source(tmp_path / "a.jsonl", lines), file_source(tmp_path / "b.jsonl", others)],
    )
    read = load_sources(config, tmp_path / "run")
    validation = {normalised(record.prompt) for source in read for record in source.validation}
    for source in read:
        assert len(source.test) > 10
        assert validation.isdisjoint(normalised(record.prompt) for record in source.test)
        assert {split_of(record.id) for record in source.test} == {"test"}


def test_an_unreadable_line_is_named(tmp_path: Path) -> None:
    good = '{"prompt": "a", "output_tokens": 3}'
    config = TrainConfig(
        name="x", sources=[file_source(tmp_path / "a.jsonl", [good, good, '{"prompt": "b"'])]
    )
    with pytest.raises(RecordError, match=r"a\.jsonl:3: "):
        load_sources(config, tmp_path / "run")


def test_a_source_too_small_to_rank_is_named(tmp_path: Path) -> None:
    config = TrainConfig(
        name="x", sources=[file_source(tmp_path / "tiny.jsonl", ['{"prompt": "a", "output_tokens": 3}'])]
    )
    with pytest.raises(DataError, match="tiny"):
        load_sources(config, tmp_path / "run")


def test_an_auxiliary_source_is_trained_on_whole_but_for_what_another_holds_out(tmp_path: Path) -> None:
    lines = [json.dumps({"id": f"r{i}", "prompt": f"Prompt {i}", "output_tokens": i + 1}) for i in range(300)]
    others = [
        json.dumps({"id": f"o{i}", "prompt": f" prompt\u00a0 {i}\n", "output_tokens": 9}) for i in range(600)
    ]
    main = file_source(tmp_path / "main.jsonl", lines)
    auxiliary = file_source(tmp_path / "other.jsonl", others, auxiliary=True)
    config = TrainConfig(name="x", sources=[main, auxiliary])
    first, second = load_sources(config, tmp_path / "run")
    assert (second.validation, second.test) == ((), ())
    held_out = {normalised(record.prompt) for record in first.validation + first.test}
    assert len(held_out) > 30
    assert not [record for record in (*first.train, *second.train) if normalised(record.prompt) in held_out]
    assert len(second.train) == 600 - len(held_out)
    assert {split_of(record.id) for record in second.train} == {"train", "validation", "test"}
    with pytest.raises(ValueError, match="auxiliary"):
        TrainConfig(name="x", sources=[auxiliary])


def test_which_llm_of_a_file(tmp_path: Path) -> None:
    lines = [json.dumps({"prompt": f"p{i}", "lengths_by_model": {"a": 1 + i, "b": 5 + i}}) for i in range(2)]
    source = file_source(tmp_path / "a.jsonl", lines, model="b")
    assert [record.output_lengths for record in read_source(source)] == [(5,), (6,)]


def test_a_limit_samples_a_sorted_file_evenly_and_alike(tmp_path: Path) -> None:
    lines = [json.dumps({"id": f"r{i}", "prompt": f"p{i}", "output_tokens": i + 1}) for i in range(1000)]
    source = file_source(tmp_path / "a.jsonl", lines, limit=200)
    config = TrainConfig(name="x", sources=[source])

    def chosen(folder: str) -> list[PromptRecord]:
        [data] = load_sources(config, tmp_path / folder)
        assert [record.output_lengths for record in data.train] == sorted(
            record.output_lengths for record in data.train
        )
        return sorted((*data.train, *data.validation, *data.test), key=lambda record: record.output_lengths)

    records = chosen("run")
    assert len(records) == 200
    assert records == chosen("again")
    assert 60 < sum(record.output_lengths[0] > 500 for record in records) < 140
    assert 15 < sum(split_of(record.id) != "train" for record in records) < 65
    digests = sorted(hashlib.blake2b(f"r{i}".encode(), person=b"limit").digest() for i in range(1000))
    assert {hashlib.blake2b(record.id.encode(), person=b"limit").digest() for record in records} == set(
        digests[:200]
    ), "earlier releases' choice"


def test_a_hub_dataset_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def without_datasets(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name == "datasets":
            raise ModuleNotFoundError("No module named 'datasets'", name="datasets")
        return real_import(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without_datasets)
    source = HubSource(kind="hub", name="h", licence="MIT", dataset="someone/something")
    with pytest.raises(DataError, match=r"pip install 'rankserve\[hub\]'"):
        list(read_source(source))


def test_a_synthetic_source() -> None:
    source = SyntheticSource(kind="synthetic", name="s", licence="MIT", count=7, seed=2)
    assert len(list(read_source(source))) == 7


@pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is absent")
@pytest.mark.parametrize(
    ("name", "model"),
    [("alpaca_vicuna7b", None), ("gpteacher_gpt4", None), ("mmlupro", "Meta-Llama-3_1-8B-Instruct")],
)
def test_the_shared_files_can_be_read(name: str, model: str | None) -> None:
    path = DATA / "lengths" / f"{name}.jsonl.gz"
    source = FileSource(kind="file", name=name, licence="-", path=path, model=model)
    assert len(list(itertools.islice(read_source(source), 300))) == 300


def ranked(count: int, offset: int) -> list[RankedPrompt]:
    return [RankedPrompt((offset + i,), (i + 1,), (False,)) for i in range(count)]


def test_lists_stay_within_a_source_and_hold_each_prompt_once() -> None:
    lists = ListDataset([ranked(70, 0), ranked(45, 1000)], list_size=16, seed=0)
    assert len(lists) == 4 + 2
    members = [[prompt.input_ids[0] for prompt in lists[i].prompts] for i in range(len(lists))]
    assert all(len(ids) == 16 for ids in members)
    assert all(len({number >= 1000 for number in ids}) == 1 for ids in members)
    everything = [number for ids in members for number in ids]
    assert len(set(everything)) == len(everything)


def test_lists_are_drawn_anew_each_epoch_and_alike_for_a_seed() -> None:
    def epoch(seed: int, number: int) -> list[RankedList]:
        lists = ListDataset([ranked(64, 0)], list_size=8, seed=seed)
        lists.set_epoch(number)
        return [lists[i] for i in range(len(lists))]

    assert epoch(1, 3) == epoch(1, 3)
    assert epoch(1, 3) != epoch(1, 4)
    assert epoch(1, 3) != epoch(2, 3)


def test_a_source_smaller_than_a_list_makes_one_list() -> None:
    lists = ListDataset([ranked(5, 0)], list_size=32, seed=0)
    assert [len(lists[i].prompts) for i in range(len(lists))] == [5]
