"""What is collected: every format of prompts, and what is said about those that cannot be used."""

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from rankserve.records.jsonl import RecordError
from rankserve.records.prompts import prompt_id
from rankserve.trainer.collection.errors import CollectionError
from rankserve.trainer.collection.files import read_rows
from rankserve.trainer.collection.hub import read_dataset
from rankserve.trainer.collection.prompts import Message, PromptSet, prompt_set

TEXTS = ["What is a lease?", "Bonjour, ça va ?", 'a, "quoted" one']


def read(path: Path, field: str = "prompt", id_field: str = "id", limit: int | None = None) -> PromptSet:
    return prompt_set(path, read_rows(path, field=field), field=field, id_field=id_field, limit=limit)


def write_csv(path: Path, delimiter: str = ",") -> None:
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([["prompt", "n"], *([text, 1] for text in TEXTS)])


def write_parquet(path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="needs the extra collect")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"prompt": TEXTS}), path)


LINES = "".join(json.dumps({"prompt": text}) + "\n" for text in TEXTS)
WRITERS: dict[str, Callable[[Path], object]] = {
    "p.jsonl": lambda path: path.write_text(LINES),
    "p.jsonl.gz": lambda path: path.write_bytes(gzip.compress(LINES.encode())),
    "p.json": lambda path: path.write_text(json.dumps([{"prompt": text} for text in TEXTS])),
    "p.txt": lambda path: path.write_text("\n\n".join(TEXTS), encoding="utf-8-sig"),
    "p.txt.gz": lambda path: path.write_bytes(gzip.compress("\r\n".join(TEXTS).encode())),
    "p.csv": write_csv,
    "p.tsv": lambda path: write_csv(path, "\t"),
    "p.parquet": write_parquet,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_prompts(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name)
    found = read(tmp_path / name)
    assert [prompt.text for prompt in found.prompts] == TEXTS
    assert [prompt.id for prompt in found.prompts] == [prompt_id(text) for text in TEXTS]


@pytest.mark.parametrize(
    "turns", [("role", "user", "assistant", "content"), ("from", "human", "gpt", "value")]
)
def test_a_conversation_is_sent_up_to_its_last_user_turn(turns: tuple[str, ...], tmp_path: Path) -> None:
    who, user, model, what = turns
    path = tmp_path / "p.jsonl"
    said = [(user, "hi"), (model, "hello"), (user, "why?"), (model, "because")]
    path.write_text(json.dumps({"talk": [{who: role, what: text} for role, text in said]}))
    (prompt,) = read(path, field="talk").prompts
    assert prompt.messages == (Message("user", "hi"), Message("assistant", "hello"), Message("user", "why?"))
    assert prompt.text == "why?"
    assert prompt.id != prompt_id("why?"), "the same question after another history is another prompt"


def test_ids_are_the_sources_own_where_it_has_them(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"key": 7, "prompt": "a"}\n{"prompt": "b"}\n{"key": "x", "prompt": "a"}\n')
    found = read(path, id_field="key")
    assert [prompt.id for prompt in found.prompts] == ["7", prompt_id("b"), "x"]
    assert found.repeats == 0


def test_a_prompt_that_repeats_without_an_id_is_taken_once(tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    path.write_text("a\nb\na\na\nc\n")
    found = read(path)
    assert [prompt.text for prompt in found.prompts] == ["a", "b", "c"]
    assert found.repeats == 2
    assert [prompt.text for prompt in read(path, limit=2).prompts] == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "content", "line", "told"),
    [
        ("p.jsonl", b"", 0, "no prompt"),
        ("p.txt", b" \n\n", 0, "no prompt"),
        ("p.csv", b"prompt\n", 0, "no prompt"),
        ("p.jsonl", b'{"prompt": "a"}\n{"text": "b", "n": 1}\n', 2, "only n, text: name the field"),
        ("p.jsonl", b'{"prompt": "a"}\n{"prompt": \n', 2, "not valid JSON"),
        ("p.jsonl", b'{"prompt": "a"}\n["b"]\n', 2, "expected a JSON object"),
        ("p.jsonl", b'{"prompt": " "}\n', 1, "remove the record"),
        ("p.jsonl", b'{"prompt": 3}\n', 1, "must be a text or a list of messages"),
        ("p.jsonl", b'{"prompt": [{"role": "user", "content": [1]}]}\n', 1, "must list messages"),
        ("p.jsonl", b'{"prompt": [{"role": "system", "content": "x"}]}\n', 1, "no user turn"),
        ("p.jsonl", b'{"prompt": "\\ud800"}\n', 1, "surrogate"),
        ("p.jsonl", b'{"prompt": "a", "id": "\\ud800"}\n', 1, "surrogate"),
        ("p.jsonl", b'{"prompt": "a", "id": [1]}\n', 1, '"id" must be'),
        (
            "p.jsonl",
            b'{"prompt": "a", "id": 1}\n\n{"prompt": "b", "id": "1"}\n',
            3,
            "id '1' is that of line 1",
        ),
        ("p.jsonl", b'{"prompt": "a"}\n{"prompt": "\xff"}\n', 2, "UTF-8"),
        ("p.txt", b"good\n\xff\xfe bad\n", 2, "not UTF-8"),
        ("p.csv", b'prompt\n"two\nlines"\n" "\n', 4, "remove the record"),
        ("p.csv", b"prompt\ngood\n\xff\n", 3, "not UTF-8"),
        ("p.csv", b'prompt,n\n"a",1\n"b,2\n', 3, "not a table"),
        ("p.csv", b"prompt,n\na, b,1\n", 2, "more columns"),
        ("p.txt.gz", b"not gzip", 1, "unreadable"),
        ("p.txt.gz", gzip.compress(b"cut off", mtime=0)[:-6], 1, "unreadable"),
        ("p.json", b'{"prompt": "a"}\n{"prompt": "b"}', 2, "name it .jsonl"),
        ("p.json", b'{"prompt": "a"}', 0, "must hold a list"),
        ("p.json", b'[{"prompt": "a"}, 3]', 0, "entry 2"),
    ],
)
def test_what_cannot_be_used_is_named_with_file_and_line(
    name: str, content: bytes, line: int, told: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(RecordError) as error:
        read(path)
    assert error.value.line == line
    assert told in str(error.value)
    assert str(path) in str(error.value)


def test_a_broken_parquet_file_is_named(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="needs the extra collect")
    path = tmp_path / "p.parquet"
    path.write_bytes(b"PAR1 but not really PAR1")
    with pytest.raises(RecordError, match=str(path)):
        read(path)


def test_an_unknown_format_is_refused_with_those_that_are_known(tmp_path: Path) -> None:
    with pytest.raises(CollectionError, match=r"\.jsonl, .*\.parquet"):
        read_rows(tmp_path / "p.docx", field="prompt")


def test_a_dataset_is_read_from_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    datasets = pytest.importorskip("datasets", reason="needs the extra hub: pip install 'rankserve[hub]'")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "train.jsonl").write_text(LINES)
    rows = read_dataset(str(folder), subset=None, split="train[:2]")
    assert "\r" not in capsys.readouterr().err, "bars tear up a log"
    assert [prompt.text for prompt in prompt_set("mine", rows).prompts] == TEXTS[:2]
    with pytest.raises(CollectionError, match="--split"):
        read_dataset(str(folder), subset=None, split="nonsense")


def test_without_datasets_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(CollectionError, match=r"pip install 'rankserve\[hub\]'"):
        read_dataset("any", subset=None, split="train")
