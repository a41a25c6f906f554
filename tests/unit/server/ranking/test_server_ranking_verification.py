"""A version is verified as it is served: sums, manifest, ONNX Runtime, and the scores recorded at export."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from structlog.testing import capture_logs
from support.damage import DAMAGES
from support.ranker_folder import write_version
from support.schema_1 import publish_schema_1

from rankserve.records.manifest_checks import read_version
from rankserve.records.ranker_version import Calibration, Probe, RankerVersionError
from rankserve.server.ranking.errors import OtherScoresError
from rankserve.server.ranking.probes import check_probes
from rankserve.server.ranking.ranker import Ranker, RankerSettings
from rankserve.server.ranking.repository import ModelRepository
from rankserve.server.ranking.verification import Verified, verify_version

Publish = Callable[..., Path]
CPU = ("CPUExecutionProvider",)


def test_a_version_without_probes_is_loaded_and_run(publish_version: Publish) -> None:
    assert verify_version(publish_version()) == Verified(CPU, 0, None)


def test_recorded_scores_are_reproduced(publish_version: Publish) -> None:
    probes = (Probe("one two", -3.0), Probe("write a story", -4.0005))
    verified = verify_version(publish_version(probes=probes))
    assert verified.probes == 2
    assert verified.max_difference == pytest.approx(0.0005)


@pytest.mark.parametrize(
    ("probe", "precision", "problem"),
    [
        (
            Probe("one two", -3.02),
            "fp32",
            r"recorded at export by 0\.02, allowed are 0\.01",
        ),
        (Probe("one two", -3.3), "int8", r"by 0\.3, allowed are 0\.2"),
        (Probe("one poison", -3.0), "fp32", "not finite"),
        (Probe("crash", -2.0), "fp32", "fails on a prompt it was exported with"),
    ],
)
async def test_other_scores_than_recorded_are_refused(
    repository_path: Path, publish_version: Publish, probe: Probe, precision: str, problem: str
) -> None:
    folder = publish_version(probes=(Probe("one", -2.0), probe), precision=precision)
    with pytest.raises(RankerVersionError, match=problem):
        verify_version(folder)
    ranker = Ranker(ModelRepository(repository_path), RankerSettings())
    with pytest.raises(RankerVersionError, match=problem):
        await ranker.load()


async def test_where_allowed_other_scores_are_served_and_logged_as_an_error(
    repository_path: Path, publish_version: Publish
) -> None:
    publish_version(probes=(Probe("one two", 12.0),))
    ranker = Ranker(ModelRepository(repository_path), RankerSettings(timeout_ms=60_000))
    with capture_logs() as logs:
        await ranker.activate(await ranker.load(allow_other_scores=True), move_pointer=False)
    assert [(entry["log_level"], entry["event"]) for entry in logs] == [
        ("error", "ranker_scores_differ_from_export")
    ]
    assert ranker.active is not None
    assert "differ from those recorded at export by 15" in ranker.active.problem
    assert (await ranker.score("one two")).score == -3.0
    await ranker.aclose()


@pytest.mark.parametrize("prompt", ["one poison", "crash"])
async def test_a_probe_without_a_finite_score_is_refused_even_there(
    repository_path: Path, publish_version: Publish, prompt: str
) -> None:
    publish_version(probes=(Probe(prompt, -3.0),))
    ranker = Ranker(ModelRepository(repository_path), RankerSettings())
    with pytest.raises(RankerVersionError, match="fails on a prompt it was exported with"):
        await ranker.load(allow_other_scores=True)


def test_scores_that_are_wrong_only_in_a_batch_are_refused(publish_version: Publish) -> None:
    folder = publish_version(probes=(Probe("one two", -3.0), Probe("write a story", -4.0)))

    def wrong_where_padded(prompts: Sequence[str]) -> npt.NDArray[np.float64]:
        right = np.array([-1.0 - len(prompt.split()) for prompt in prompts])
        return right if len(prompts) == 1 else right - np.arange(len(prompts))[::-1]

    with pytest.raises(RankerVersionError, match="recorded at export by 1"):
        check_probes(folder, read_version(folder), wrong_where_padded)


@pytest.mark.parametrize(
    ("precision", "on_cpu", "calibration", "allowed"),
    [
        ("fp32", True, Calibration((-1.0, 3.0), (9.0, 1.0), (9.0, 1.0)), 0.004),
        ("fp32", False, Calibration((-1.0, 3.0), (9.0, 1.0), (9.0, 1.0)), 0.04),
        ("int8", True, Calibration((-1.0, 3.0), (9.0, 1.0), (9.0, 1.0)), 0.08),
        ("int8", False, Calibration((-1.0, 3.0), (9.0, 1.0), (9.0, 1.0)), 0.08),
        ("int8", True, Calibration((99.0,), (9.0,), (9.0,)), 0.01),
        ("int8", True, None, 0.01),
    ],
)
def test_the_tolerance_is_a_share_of_how_far_scores_are_apart(
    tmp_path: Path, precision: str, on_cpu: bool, calibration: Calibration | None, allowed: float
) -> None:
    """However large they are: an offset does not change what a difference does to the order."""
    manifest = replace(
        write_version(tmp_path / "r" / "1"),
        precision=precision,
        calibration=calibration,
        probes=(Probe("short", 100.0), Probe("long", 99.5)),
    )

    def moved(by: float) -> Callable[[Sequence[str]], npt.NDArray[np.float64]]:
        return lambda prompts: np.array([100.0 if prompt == "short" else 99.5 for prompt in prompts]) + by

    assert check_probes(tmp_path, manifest, moved(0.9 * allowed), on_cpu=on_cpu) is not None
    with pytest.raises(OtherScoresError, match=f"allowed are {allowed}:"):
        check_probes(tmp_path, manifest, moved(1.1 * allowed), on_cpu=on_cpu)


def test_a_single_probe_without_calibration_is_judged_by_its_size(tmp_path: Path) -> None:
    manifest = replace(write_version(tmp_path / "r" / "1"), calibration=None, probes=(Probe("short", -10.0),))
    with pytest.raises(OtherScoresError, match=r"allowed are 0\.2:"):
        check_probes(tmp_path, manifest, lambda prompts: np.full(len(prompts), -11.0))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_version_says_how(publish_version: Publish, damage: Callable[[Path], None]) -> None:
    folder = publish_version(max_length=64)
    damage(folder)
    with pytest.raises(RankerVersionError, match=re.escape(DAMAGES[damage])):
        verify_version(folder)


def test_a_provider_that_is_not_here_is_an_error(publish_version: Publish) -> None:
    with pytest.raises(RankerVersionError, match="NoSuchExecutionProvider"):
        verify_version(publish_version(), provider="NoSuchExecutionProvider")


async def test_a_version_of_an_older_release_is_verified_and_served(repository_path: Path) -> None:
    folder = publish_schema_1(repository_path, "old", 1)
    manifest = (folder / "ranker.json").read_bytes()
    assert verify_version(folder) == Verified(CPU, 0, None)
    ranker = Ranker(ModelRepository(repository_path), RankerSettings(timeout_ms=60_000))
    await ranker.activate(await ranker.load())
    score = await ranker.score("one two three")
    assert (score.score, score.ranker_version) == (-4.0, "old/1")
    assert (score.expected_tokens_p50, score.expected_tokens_p90) == (140.0, 250.0)
    await ranker.aclose()
    # Reading it changed nothing: the older release can still use it.
    assert (folder / "ranker.json").read_bytes() == manifest
