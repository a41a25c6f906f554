import builtins
import json
from pathlib import Path
from typing import Any

import pytest

from rankserve.records.jsonl import RecordError
from rankserve.records.prompts import PromptRecord, split_of
from rankserve.trainer.config import FileSource, HubSource, SyntheticSource, TrainConfig
from rankserve.trainer.data import DataError, length_label, load_sources, read_source
from rankserve.trainer.lists import ListDataset, RankedPrompt

DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data"


def file_source(path: Path, lines: list[str], **settings: Any) -> FileSource:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return FileSource(kind="file", name=path.stem, licence="MIT", path=path, **settings)


def test_labels() -> None:
    record = PromptRecord("a", "p", (39, 10, 20, 31))
    assert length_label(record) == -25
    assert length_label(record, label="sample") == -39
    assert length_label(record, label="sample", bucket_tokens=10) == -3
    assert length_label(record, label="mean", bucket_tokens=10) == -2
    shorter = PromptRecord("b", "p", (24,))
    assert length_label(shorter) > length_label(record)
    assert length_label(shorter, bucket_tokens=10) == length_label(record, bucket_tokens=10)


def test_a_source_is_split_by_id_and_nothing_held_out_is_trained_on(tmp_path: Path) -> None:
    lines = [
        json.dumps({"id": f"r{i}", "prompt": f"prompt {i % 150}", "output_tokens": i + 1}) for i in range(300)
    ]
    config = TrainConfig(name="x", sources=[file_source(tmp_path / "a.jsonl", lines)])
    [source] = load_sources(config)
    for name, records in (("train", source.train), ("validation", source.validation), ("test", source.test)):
        assert records
        assert {split_of(record.id) for record in records} == {name}
    trained_on = {record.prompt for record in source.train}
    assert not [record for record in source.validation + source.test if record.prompt in trained_on]


def test_an_unreadable_line_is_named(tmp_path: Path) -> None:
    good = '{"prompt": "a", "output_tokens": 3}'
    config = TrainConfig(
        name="x", sources=[file_source(tmp_path / "a.jsonl", [good, good, '{"prompt": "b"'])]
    )
    with pytest.raises(RecordError, match=r"a\.jsonl:3: "):
        load_sources(config)


def test_a_source_too_small_to_rank_is_named(tmp_path: Path) -> None:
    config = TrainConfig(
        name="x", sources=[file_source(tmp_path / "tiny.jsonl", ['{"prompt": "a", "output_tokens": 3}'])]
    )
    with pytest.raises(DataError, match="tiny"):
        load_sources(config)


def test_an_auxiliary_source_is_only_trained_on_and_never_on_what_another_holds_out(tmp_path: Path) -> None:
    lines = [json.dumps({"id": f"r{i}", "prompt": f"prompt {i}", "output_tokens": i + 1}) for i in range(300)]
    others = [json.dumps({"id": f"o{i}", "prompt": f"prompt {i}", "output_tokens": 9}) for i in range(600)]
    main = file_source(tmp_path / "main.jsonl", lines)
    auxiliary = file_source(tmp_path / "other.jsonl", others, auxiliary=True)
    first, second = load_sources(TrainConfig(name="x", sources=[main, auxiliary]))
    assert (second.validation, second.test) == ((), ())
    held_out = {record.prompt for record in first.validation + first.test}
    assert held_out
    assert not [record for record in first.train + second.train if record.prompt in held_out]
    assert len(second.train) > 300
    with pytest.raises(ValueError, match="auxiliary"):
        TrainConfig(name="x", sources=[auxiliary])


def test_which_llm_of_a_file(tmp_path: Path) -> None:
    lines = [json.dumps({"prompt": f"p{i}", "lengths_by_model": {"a": 1 + i, "b": 5 + i}}) for i in range(2)]
    source = file_source(tmp_path / "a.jsonl", lines, model="b")
    assert [record.output_lengths for record in read_source(source)] == [(5,), (6,)]


def test_a_limit_samples_a_sorted_file_evenly_and_alike(tmp_path: Path) -> None:
    lines = [json.dumps({"id": f"r{i}", "prompt": f"p{i}", "output_tokens": i + 1}) for i in range(1000)]
    source = file_source(tmp_path / "a.jsonl", lines, limit=200)
    records = read_source(source)
    assert len(records) == 200
    assert records == read_source(source)
    order = [record.output_lengths[0] for record in records]
    assert order == sorted(order)
    assert 60 < sum(length > 500 for length in order) < 140
    assert 15 < sum(split_of(record.id) != "train" for record in records) < 65


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
    source = FileSource(kind="file", name=name, licence="-", path=path, model=model, limit=300)
    assert len(list(read_source(source))) == 300


def ranked(count: int, offset: int) -> list[RankedPrompt]:
    return [RankedPrompt((offset + i,), float(i)) for i in range(count)]


def test_lists_stay_within_a_source_and_hold_each_prompt_once() -> None:
    lists = ListDataset([ranked(70, 0), ranked(45, 1000)], list_size=16, seed=0)
    assert len(lists) == 4 + 2
    members = [[prompt.input_ids[0] for prompt in lists[i]] for i in range(len(lists))]
    assert all(len(ids) == 16 for ids in members)
    assert all(len({number >= 1000 for number in ids}) == 1 for ids in members)
    everything = [number for ids in members for number in ids]
    assert len(set(everything)) == len(everything)


def test_lists_are_drawn_anew_each_epoch_and_alike_for_a_seed() -> None:
    def epoch(seed: int, number: int) -> list[list[RankedPrompt]]:
        lists = ListDataset([ranked(64, 0)], list_size=8, seed=seed)
        lists.set_epoch(number)
        return [lists[i] for i in range(len(lists))]

    assert epoch(1, 3) == epoch(1, 3)
    assert epoch(1, 3) != epoch(1, 4)
    assert epoch(1, 3) != epoch(2, 3)


def test_a_source_smaller_than_a_list_makes_one_list() -> None:
    lists = ListDataset([ranked(5, 0)], list_size=32, seed=0)
    assert [len(lists[i]) for i in range(len(lists))] == [5]
