import json
import random
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from transformers import OPTConfig

from rankserve.exporter.errors import ExportError, GateError, SourceError
from rankserve.exporter.export import ExportSettings, export_ranker
from rankserve.exporter.optimise import optimise
from rankserve.exporter.probes import PROMPTS
from rankserve.progress import Lines, report_to
from rankserve.records.jsonl import RecordError, write_jsonl
from rankserve.records.ranker_version import MODEL_CARD, RankerManifest, read_manifest, verify_files
from rankserve.server.ranking.session import OnnxScorer
from rankserve.server.ranking.verification import verify_version

from .conftest import MAX_LENGTH, WriteRun


def _settings(tmp_path: Path, **changes: object) -> ExportSettings:
    return ExportSettings(**{"repository": tmp_path / "models", "name": "tiny", **changes})  # type: ignore[arg-type]


@pytest.mark.usefixtures("exported_once")
def test_int8_then_fp32_become_versions_1_and_2(
    run: Path, tmp_path: Path, prompts: list[str], torch_scores: np.ndarray
) -> None:
    lines: list[str] = []
    with report_to(Lines(lines.append)):
        int8 = export_ranker(run, _settings(tmp_path))
    fp32 = export_ranker(run, _settings(tmp_path, precision="fp32", activate=True))

    assert (int8.manifest.version, fp32.manifest.version) == (1, 2)
    assert (int8.activated, fp32.activated) == (True, True)
    begun = [line.split(" starts")[0] for line in lines if " starts" in line]
    assert begun == [
        "reading validation prompts",
        "tracing the graph",
        "comparing the graph with torch",
        "scoring validation prompts in fp32",
        "quantising to int8",
        "comparing the graph with torch",
        "measuring activations",
        "scoring validation prompts in int8",
        "checking what batch mates do to scores",
        "calibrating expected lengths",
        "publishing",
    ]
    assert {line.split(":")[0] for line in lines if " in " in line} >= set(begun)
    assert any(line.startswith("Calibration: p50 covers ") for line in lines)
    for published in (int8, fp32):
        verify_files(published.folder, read_manifest(published.folder))
    _check_manifest(int8.manifest)
    assert int8.manifest.metrics["kendall_tau"] != int8.manifest.metrics["kendall_tau_fp32"]
    assert "made up (CC0)" in (int8.folder / MODEL_CARD).read_text()

    # The server reproduces what was recorded, and each test would notice another score.
    for published in (int8, fp32):
        verified = verify_version(published.folder)
        assert verified.probes == len(PROMPTS)
        assert verified.max_difference == pytest.approx(0, abs=1e-5)
    assert {probe.prompt for probe in int8.manifest.probes} == set(PROMPTS)
    assert len({probe.score for probe in int8.manifest.probes}) == len(PROMPTS)

    # What the server makes of the published files.
    np.testing.assert_allclose(_server_scores(fp32.folder, prompts), torch_scores, atol=1e-4)
    # Alone and in batches of its own making.
    together = _server_scores(int8.folder, prompts)
    alone = np.concatenate([_server_scores(int8.folder, [prompt]) for prompt in prompts[:3]])
    np.testing.assert_allclose(together[:3], alone, atol=1e-4)


def _server_scores(folder: Path, prompts: list[str]) -> np.ndarray:
    return OnnxScorer(folder, read_manifest(folder)).score(prompts)


def _check_manifest(manifest: RankerManifest) -> None:
    assert manifest.precision == "int8"
    assert (manifest.max_length, manifest.pad_token_id, manifest.truncation_side) == (MAX_LENGTH, 1, "left")
    assert manifest.licence == "Apache-2.0"
    metrics = manifest.metrics
    assert 0.3 < metrics["kendall_tau"] < metrics["kendall_tau_ceiling"] + 0.1
    assert metrics["parity_max_difference"] < 1e-4
    assert metrics["rank_flips_in_batches"] == 0
    assert metrics["validation_prompts"] == 160
    assert manifest.calibration is not None
    assert manifest.calibration.tokens_p50[0] > manifest.calibration.tokens_p50[-1]
    assert manifest.coverage is not None
    assert (manifest.coverage.prompts, manifest.coverage.answers) == (160, 480)
    assert 0.4 < manifest.coverage.p50 < 0.6
    assert 0.8 < manifest.coverage.p90 < 1
    assert metrics["kendall_tau_needed"] == pytest.approx(0.16, abs=0.01)
    assert manifest.optimization == ""
    assert manifest.calibration.scores[0] < manifest.neutral_score < manifest.calibration.scores[-1]


@pytest.mark.usefixtures("exported_once")
def test_fp16_keeps_float32_scores(run: Path, tmp_path: Path, prompts: list[str]) -> None:
    published = export_ranker(run, _settings(tmp_path, precision="fp16"))
    metrics = published.manifest.metrics

    assert abs(metrics["kendall_tau"] - metrics["kendall_tau_fp32"]) < 0.01
    assert _server_scores(published.folder, prompts[:2]).shape == (2,)


@pytest.mark.usefixtures("exported_once")
@pytest.mark.parametrize(
    ("level", "precision", "applied"),
    [("O2", "int8", ""), ("O2", "fp32", "O1"), ("O4", "fp16", "O4")],
)
def test_graph_optimisation_is_gated_recorded_and_served(
    run: Path,
    tmp_path: Path,
    torch_scores: np.ndarray,
    prompts: list[str],
    capsys: pytest.CaptureFixture[str],
    level: str,
    precision: str,
    applied: str,
) -> None:
    """OPT has no patterns to fuse: a level that did nothing, or less than its name says, is not recorded."""
    lines: list[str] = []
    settings = _settings(tmp_path, precision=precision, optimize=level)
    with report_to(Lines(lines.append)):
        published = export_ranker(run, settings)

    assert capsys.readouterr().out == "", "stdout is for the result of `rankserve export --json`"
    manifest = published.manifest
    assert (manifest.precision, manifest.optimization) == (precision, applied)
    if applied:
        assert manifest.metrics["optimization_max_difference"] < 0.05
        assert manifest.metrics["optimization_rank_flips"] < 0.01
    else:
        assert "optimization_rank_flips" not in manifest.metrics
    # optimum knows no OPT, and says what it did instead.
    assert any(line.startswith(f"{level} (bert patterns) fused ") for line in lines)
    assert any(line.startswith(f"WARNING: --optimize {level} ") for line in lines) == (applied != level)
    card = (published.folder / MODEL_CARD).read_text()
    assert f"graph optimised to {applied}" in card or not applied
    assert ("graph optimised" in card) == bool(applied)
    assert verify_version(published.folder).max_difference == pytest.approx(0, abs=1e-4)
    np.testing.assert_allclose(_server_scores(published.folder, prompts), torch_scores, atol=0.2)


def test_o4_is_fp16_or_nothing(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="pass --precision fp16 with it, not int8"):
        export_ranker(run, _settings(tmp_path, optimize="O4"))


def test_a_missing_optimum_says_how_to_get_it(
    graph: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optimum.onnxruntime", None)
    with pytest.raises(ExportError, match=r"needs optimum .*pip install 'rankserve\[exporter\]'"):
        optimise(graph, OPTConfig(), "O2")  # type: ignore[no-untyped-call]


@pytest.mark.usefixtures("exported_once")
def test_shuffled_lengths_publish_nothing(
    tmp_path: Path, write_run: WriteRun, lengths: list[list[int]]
) -> None:
    shuffled = list(lengths)
    random.Random(4).shuffle(shuffled)
    run = write_run(tmp_path / "run", shuffled)

    with pytest.raises(GateError, match="Kendall's tau is"):
        export_ranker(run, _settings(tmp_path))

    assert not (tmp_path / "models").exists()


@pytest.mark.usefixtures("exported_once")
def test_inverted_sign_is_named(tmp_path: Path, write_run: WriteRun, lengths: list[list[int]]) -> None:
    longest = max(map(max, lengths))
    run = write_run(tmp_path / "run", [[longest + 1 - length for length in answer] for answer in lengths])

    with pytest.raises(GateError, match=r"tau is -0\.\d+ on 160 validation prompts: the sign seems inverted"):
        export_ranker(run, _settings(tmp_path))


@pytest.mark.usefixtures("exported_once")
def test_minimum_tau_is_held(run: Path, tmp_path: Path) -> None:
    with pytest.raises(GateError, match=r"at least 0\.950 is needed"):
        export_ranker(run, _settings(tmp_path, minimum_tau=0.95))


def test_foreign_checkpoint_needs_data(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="pass --data FILE"):
        export_ranker(checkpoint, _settings(tmp_path))


@pytest.mark.usefixtures("exported_once")
def test_foreign_checkpoint_with_data_is_published(
    checkpoint: Path, tmp_path: Path, prompts: list[str], lengths: list[list[int]]
) -> None:
    data = tmp_path / "data.jsonl"
    write_jsonl(
        data,
        (
            {"prompt": prompt, "lengths_by_model": {"a": answer[0], "b": 1 + index % 7}}
            for index, (prompt, answer) in enumerate(zip(prompts, lengths, strict=True))
        ),
    )

    with pytest.raises(RecordError, match="lengths of several models"):
        export_ranker(checkpoint, _settings(tmp_path, data=data))
    published = export_ranker(checkpoint, _settings(tmp_path, data=data, lengths_of="a", precision="fp32"))

    assert published.manifest.base_model == "opt"
    assert (published.manifest.max_length, published.manifest.truncation_side) == (MAX_LENGTH, "left")
    assert "kendall_tau_ceiling" not in published.manifest.metrics


def test_folders_that_hold_no_ranker_are_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(SourceError, match="neither a run"):
        export_ranker(empty, _settings(tmp_path))

    (empty / "checkpoints").mkdir()
    with pytest.raises(SourceError, match="unfinished run"):
        export_ranker(empty, _settings(tmp_path))

    (empty / "run.json").write_text(json.dumps({"base_model": "opt-mini"}))
    with pytest.raises(SourceError, match="max_length"):
        export_ranker(empty, _settings(tmp_path))


def test_a_bad_data_line_is_named(run: Path, tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text('{"prompt": "a", "output_tokens": 3}\n{"prompt": "b", "output_tokens": 0}\n')

    with pytest.raises(RecordError, match=r"data\.jsonl:2: output lengths must be integers"):
        export_ranker(run, _settings(tmp_path, data=data))
