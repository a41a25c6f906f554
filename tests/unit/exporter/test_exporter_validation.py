from dataclasses import replace
from pathlib import Path

import pytest

from rankserve.exporter.errors import SourceError
from rankserve.exporter.source import RankerSource
from rankserve.exporter.validation import Validation, read_validation
from rankserve.records.jsonl import write_jsonl
from rankserve.records.prompts import known_as, prompt_id


def _read(source: RankerSource, data: Path | None, max_prompts: int = 1000, seed: int = 0) -> Validation:
    return read_validation(source, data, lengths_of=None, max_prompts=max_prompts, seed=seed)


@pytest.fixture
def source(tmp_path: Path) -> RankerSource:
    return RankerSource(tmp_path, "opt", max_length=8, pad_token_id=1, truncation_side="left")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.jsonl"
    write_jsonl(
        path,
        (
            {"prompt": f"prompt {index}", "output_tokens": 1 + index, "source": "b" if index % 4 else "a"}
            for index in range(100)
        ),
    )
    return path


def test_prompts_are_grouped_by_source(source: RankerSource, data: Path) -> None:
    validation = _read(source, data)

    assert [(each.source, len(each.records)) for each in validation.sets] == [("a", 25), ("b", 75)]
    assert len(validation.records) == 100
    assert validation.trained_on == 0


def test_many_prompts_are_sampled_in_proportion_by_seed(source: RankerSource, data: Path) -> None:
    validation = _read(source, data, max_prompts=40)

    assert [len(each.records) for each in validation.sets] == [10, 30]
    assert _read(source, data, max_prompts=40) == validation
    assert _read(source, data, max_prompts=40, seed=1) != validation


def test_training_prompts_are_left_out(source: RankerSource, data: Path, tmp_path: Path) -> None:
    known = tmp_path / "trained_on.txt"
    known.write_text("".join(f"{prompt_id(f'prompt {index}')}\n" for index in range(60)))

    validation = _read(replace(source, trained_on=known), data)

    assert validation.trained_on == 60
    assert {record.prompt for record in validation.records} == {f"prompt {index}" for index in range(60, 100)}


def test_a_training_prompt_is_known_by_other_case_and_white_space(
    source: RankerSource, data: Path, tmp_path: Path
) -> None:
    known = tmp_path / "trained_on.txt"
    known.write_text("".join(f"{each}\n" for each in sorted(known_as("  PROMPT 7"))))

    validation = _read(replace(source, trained_on=known), data)

    assert validation.trained_on == 1
    assert "prompt 7" not in {record.prompt for record in validation.records}


def test_no_prompts_left_is_refused(source: RankerSource, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")

    with pytest.raises(SourceError, match="holds no prompts"):
        _read(source, tmp_path / "empty.jsonl")
    with pytest.raises(SourceError, match="pass --data FILE"):
        _read(source, None)
