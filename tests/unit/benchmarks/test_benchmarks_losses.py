import json
import random
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from benchmarks import losses

from rankserve.progress import Lines, report_to
from rankserve.trainer.config import LossConfig, LossName


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Prompts that name their length, in files as the benchmark expects them."""
    rng = random.Random(0)
    path = tmp_path / "prompts.jsonl"
    with path.open("w") as file:
        for i in range(160):
            size = rng.choice([20, 90, 400])
            lengths = [max(1, round(size * rng.lognormvariate(0, 0.3))) for _ in range(3)]
            row = {"id": f"p{i}", "prompt": f"Write {size} words on topic {i}.", "lengths": lengths}
            file.write(json.dumps(row) + "\n")
    return path


def test_every_loss_is_compared() -> None:
    compared = {LossConfig.model_validate(settings).name for settings in losses.LOSSES.values()}
    assert compared == set(get_args(LossName))


def test_the_page_is_written_and_what_was_trained_is_used_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "losses.md"
    arguments = f"--data {data} --epochs 1 --seeds 0 1 --losses listmle margin --output {tmp_path / 'out'}"
    monkeypatch.setattr(sys, "argv", ["losses.py", *arguments.split(), "--page", str(page)])
    monkeypatch.setattr(losses, "minilm_folder", lambda: None)
    losses.main()
    text = page.read_text()
    assert f"python -m benchmarks.losses {arguments}" in text
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert [row[0].removeprefix("| ") for row in rows[2:]] == [
        "listmle",
        "margin",
        "length of the prompt",
        "TF-IDF + ridge",
        "another sample",
        "ceiling: mean of the other samples",
    ]
    assert "means over seeds 0, 1" in text
    assert len((tmp_path / "out" / "losses.csv").read_text().splitlines()) == 1 + 2 * 2
    capsys.readouterr()
    lines: list[str] = []
    with report_to(Lines(lines.append)):
        losses.main()
    assert page.read_text() == text
    assert len([line for line in lines if line.endswith("is complete already")]) == 4
    assert lines[-1].startswith("orders without a ranker: done in ")


def test_a_difference_is_of_the_same_resamples() -> None:
    lengths = np.random.default_rng(0).lognormal(4, 1, (80, 2))
    good, same = losses.Row(), losses.Row()
    good.add(-lengths[:, 0], lengths)
    same.add(-lengths[:, 0], lengths)
    assert losses.difference(good, same) == "+0.000 (+0.000 to +0.000)"
    assert losses.difference(good, good) == "-"


def test_data_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = tmp_path / "none.jsonl"
    monkeypatch.setattr(sys, "argv", ["losses.py", "--data", str(missing), "--output", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match=f"there is no file {missing}"):
        losses.main()
