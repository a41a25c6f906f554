from pathlib import Path

import pytest

from rankserve.trainer.training.checkpoints import Checkpoints


def write(checkpoints: Checkpoints, step: int, *, whole: bool = True) -> None:
    folder = checkpoints.of_step(step)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_text(str(step))
    (folder / "trainer_state.json").write_text("{}")
    if whole:
        checkpoints.complete(step, keep=None)


def test_only_whole_ones_count(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.last() is None
    write(checkpoints, 9)
    write(checkpoints, 10, whole=False)
    assert checkpoints.last() == checkpoints.of_step(9)
    checkpoints.remove_broken()
    assert list(checkpoints.path.iterdir()) == [checkpoints.of_step(9)]


def test_the_newest_and_the_one_to_keep_stay(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 5, 20):
        write(checkpoints, step, whole=False)
    checkpoints.complete(20, keep=5)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-5", "checkpoint-20"}
    assert checkpoints.last() == checkpoints.of_step(20)


def test_one_that_was_cut_off_while_it_was_removed_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(tmp_path)
    write(checkpoints, 1)
    write(checkpoints, 2, whole=False)

    def killed(path: Path) -> None:
        (path / "model.safetensors").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("rankserve.trainer.training.checkpoints.shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            checkpoints.complete(2, keep=None)
    assert checkpoints.of_step(1).is_dir()
    assert checkpoints.last() == checkpoints.of_step(2)
    checkpoints.remove_broken()
    assert not checkpoints.of_step(1).exists()
