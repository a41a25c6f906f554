"""`rankserve train` on unusable data: the file, the line and what to do about it, and no traceback."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rankserve.cli.main import app

CONFIG = """
name = "tiny"
[[sources]]
kind = "file"
name = "mine"
licence = "MIT"
path = "prompts.jsonl"
"""
GOOD = [json.dumps({"id": f"p{i}", "prompt": f"Say {i}", "output_tokens": i}).encode() for i in range(1, 40)]


def config_with(folder: Path, data: bytes) -> Path:
    (folder / "prompts.jsonl").write_bytes(data)
    path = folder / "tiny.toml"
    path.write_text(CONFIG)
    return path


BAD_LINES: dict[str, tuple[bytes, str]] = {
    "missing prompt": (b'{"text": "Say", "output_tokens": 3}', 'needs "prompt", and has only "text"'),
    "missing length": (
        b'{"prompt": "Say", "tokens": 3}',
        'needs "output_tokens", "lengths" or "lengths_by_model", and has only "prompt", "tokens"',
    ),
    "empty prompt": (b'{"prompt": "", "output_tokens": 3}', '"prompt" must be a non-empty string'),
    "negative length": (
        b'{"prompt": "Say", "output_tokens": -3}',
        "integers from 1 to 10000000 tokens, got -3",
    ),
    "length 0": (b'{"prompt": "Say", "lengths": [4, 0]}', "from 1 to 10000000 tokens, got 0"),
    "absurd length": (b'{"prompt": "Say", "output_tokens": 1753000000}', "tokens, got 1753000000"),
    "length that is no integer": (b'{"prompt": "Say", "output_tokens": 3.5}', "tokens, got 3.5"),
    "length that is NaN": (b'{"prompt": "Say", "output_tokens": NaN}', "tokens, got nan"),
    "length that is text": (b'{"prompt": "Say", "output_tokens": "3"}', "tokens, got '3'"),
    "marks of other number": (
        b'{"prompt": "Say", "lengths": [3, 4], "censored": [true]}',
        '"censored" must be as long as the lengths, one of true and false for each of the 2, got 1',
    ),
    "duplicate id": (
        b'{"id": "p7", "prompt": "Say more", "output_tokens": 3}',
        "id 'p7' is that of another prompt in line 7: give each prompt its own id, or leave \"id\" out",
    ),
    "not UTF-8": (b'{"prompt": "S\xe9", "output_tokens": 3}', "not UTF-8: byte 0xe9 at column 14"),
    "not JSON": (b'{"prompt": "Say", "output_tokens": 3', "not valid JSON"),
    "no object": (b'["Say", 3]', "expected a JSON object, got list"),
}


@pytest.mark.parametrize("kind", BAD_LINES)
def test_a_bad_line_is_named_with_its_file(kind: str, tmp_path: Path) -> None:
    line, problem = BAD_LINES[kind]
    config = config_with(tmp_path, b"\n".join([*GOOD, line, *GOOD]))
    result = CliRunner().invoke(app, ["train", "--config", str(config), "--output", str(tmp_path / "run")])
    assert result.exit_code == 1
    assert f"error: {tmp_path / 'prompts.jsonl'}:{len(GOOD) + 1}: " in result.stderr
    assert problem in result.stderr
    assert isinstance(result.exception, SystemExit)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("data", "remedy"),
    [
        (b"", 'prompts.jsonl: holds no prompts: put one {"prompt": ..., "output_tokens": ...} on each line'),
        (b"\n\n", "prompts.jsonl: holds no prompts"),
        (GOOD[0], "ranking needs at least 2 of each: add data or change the shares"),
    ],
)
def test_too_little_data_is_named(data: bytes, remedy: str, tmp_path: Path) -> None:
    config = config_with(tmp_path, data)
    result = CliRunner().invoke(app, ["train", "--config", str(config), "--output", str(tmp_path / "run")])
    assert result.exit_code == 1
    assert remedy in result.stderr
    assert str(tmp_path / "prompts.jsonl") in result.stderr
    assert isinstance(result.exception, SystemExit)
    assert not (tmp_path / "run").exists()


def test_evaluate_names_bad_data_too(tmp_path: Path) -> None:
    config_with(tmp_path, b"\n".join([*GOOD, BAD_LINES["absurd length"][0]]))
    data = str(tmp_path / "prompts.jsonl")
    result = CliRunner().invoke(app, ["evaluate", str(tmp_path), "--data", data])
    assert result.exit_code == 1
    assert f"error: {data}:{len(GOOD) + 1}: " in result.stderr


def test_as_a_process_it_ends_with_status_1_and_one_line(tmp_path: Path) -> None:
    config = config_with(tmp_path, b"\n".join([*GOOD, BAD_LINES["not UTF-8"][0]]))
    command = [sys.executable, "-c", "from rankserve.cli.main import app; app()", "train", "-c", str(config)]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.splitlines()[-1].startswith(f"error: {tmp_path / 'prompts.jsonl'}:40: ")
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "runs" / "tiny").exists()
