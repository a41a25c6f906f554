from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper
from tokenizers import Tokenizer, models

from rankserve.exporter import publish as publishing
from rankserve.exporter.errors import ExportError
from rankserve.exporter.publish import Published, publish
from rankserve.records.active_pointer import read_active, read_previous
from rankserve.records.pruning import prune
from rankserve.records.ranker_version import (
    MANIFEST,
    MODEL,
    RankerManifest,
    RankerVersionError,
    read_manifest,
    verify_files,
    version_numbers,
)


def _model() -> onnx.ModelProto:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    return helper.make_model(
        helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", [value], [output])
    )


def _publish(repository: Path, name: str = "tiny", *, activate: bool | None = None) -> Published:
    manifest = RankerManifest(
        name=name,
        version=0,
        sha256={},
        max_length=8,
        pad_token_id=0,
        precision="fp32",
        base_model="none",
        neutral_score=0.0,
    )
    return publish(
        repository,
        _model(),
        Tokenizer(models.BPE()),
        manifest,
        lambda numbered: f"# {numbered.name} {numbered.version}\n",
        activate=activate,
    )


def _tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_version_is_complete_and_readable(tmp_path: Path) -> None:
    published = _publish(tmp_path / "models")

    assert _tree(tmp_path / "models") == [
        ".lock",
        "active.json",
        "tiny",
        "tiny/1",
        "tiny/1/README.md",
        "tiny/1/model.onnx",
        "tiny/1/ranker.json",
        "tiny/1/tokenizer.json",
    ]
    manifest = read_manifest(published.folder)
    verify_files(published.folder, manifest)
    assert manifest == published.manifest
    assert (published.folder / "README.md").read_text() == "# tiny 1\n"
    assert published.folder.stat().st_mode & 0o777 == 0o755


def test_first_version_becomes_active_and_later_ones_do_not(tmp_path: Path) -> None:
    first, second = _publish(tmp_path), _publish(tmp_path)

    assert (first.activated, second.activated) == (True, False)
    assert second.manifest.version == 2
    assert read_active(tmp_path) == ("tiny", 1) == second.active


def test_activation_is_as_asked(tmp_path: Path) -> None:
    assert _publish(tmp_path, activate=False).active is None
    assert _publish(tmp_path, activate=True).activated
    assert _publish(tmp_path, "other", activate=True).active == ("other", 1)


def test_numbers_go_on_after_the_highest(tmp_path: Path) -> None:
    (tmp_path / "tiny" / "7").mkdir(parents=True)

    assert _publish(tmp_path).manifest.version == 8


def test_concurrent_exporters_get_different_numbers(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        published = list(pool.map(lambda _: _publish(tmp_path), range(16)))

    assert sorted(each.manifest.version for each in published) == list(range(1, 17))
    for each in published:
        verify_files(each.folder, read_manifest(each.folder))
        assert read_manifest(each.folder).version == int(each.folder.name)
    # All found no active version; one of them set it, once.
    assert read_active(tmp_path) in {("tiny", number) for number in range(1, 17)}
    assert read_previous(tmp_path) == []


def test_a_number_taken_meanwhile_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _publish(tmp_path)
    stale: Iterator[list[int]] = iter([[]])
    real = version_numbers
    monkeypatch.setattr(publishing, "version_numbers", lambda *a: next(stale, None) or real(*a))

    assert _publish(tmp_path).manifest.version == 2


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _publish(tmp_path)
    before = _tree(tmp_path)

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(publishing, "_sync_file", fail)
    with pytest.raises(OSError, match="disk full"):
        _publish(tmp_path)

    assert _tree(tmp_path) == before


def test_pruning_leaves_a_version_alone_that_is_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _publish(tmp_path)
    real = publishing._sync_file

    def prune_first(path: Path) -> None:
        prune(tmp_path)
        real(path)

    monkeypatch.setattr(publishing, "_sync_file", prune_first)
    published = _publish(tmp_path)
    verify_files(published.folder, read_manifest(published.folder))


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "..", "a\nb"])
def test_a_name_that_is_no_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ExportError, match="plain folder name"):
        _publish(tmp_path, name)

    assert _tree(tmp_path) == []


def test_a_damaged_model_is_noticed(tmp_path: Path) -> None:
    folder = _publish(tmp_path).folder
    (folder / MODEL).write_bytes((folder / MODEL).read_bytes()[:-1])

    with pytest.raises(RankerVersionError, match=r"model\.onnx is damaged"):
        verify_files(folder, read_manifest(folder))


def test_a_half_written_version_is_noticed(tmp_path: Path) -> None:
    folder = _publish(tmp_path).folder
    manifest = (folder / MANIFEST).read_text()

    (folder / MANIFEST).write_text(manifest[: len(manifest) // 2])
    with pytest.raises(RankerVersionError, match="unreadable"):
        read_manifest(folder)

    (folder / MANIFEST).unlink()
    with pytest.raises(RankerVersionError, match="half written"):
        read_manifest(folder)
