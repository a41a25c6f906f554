import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from structlog.testing import capture_logs

from rankserve.records.active_pointer import read_active
from rankserve.records.ranker_version import (
    MANIFEST,
    MODEL,
    TOKENIZER,
    RankerManifest,
    RankerVersionError,
    sha256_of,
)
from rankserve.server.ranking.errors import FailureKind, ScoringError
from rankserve.server.ranking.ranker import LoadedVersion, PromptScore, Ranker, RankerSettings
from rankserve.server.ranking.repository import ModelRepository

Publish = Callable[..., Path]

LONG_MS = 60_000.0
SETTINGS = RankerSettings(timeout_ms=LONG_MS)


@pytest.fixture
async def ranker(repository_path: Path) -> AsyncIterator[Ranker]:
    ranker = Ranker(ModelRepository(repository_path), SETTINGS)
    yield ranker
    await ranker.aclose()


def words(count: int) -> str:
    return " ".join(["one"] * count)


async def test_scores_carry_version_and_calibration(ranker: Ranker, publish_version: Publish) -> None:
    publish_version()
    await ranker.activate(await ranker.load(None, None))
    assert await ranker.score(words(4)) == PromptScore(-5.0, "toy/1", 150.0, 275.0)


async def test_without_a_calibration_there_is_no_expectation(
    ranker: Ranker, publish_version: Publish
) -> None:
    publish_version(calibration=None)
    await ranker.activate(await ranker.load())
    assert await ranker.score("one") == PromptScore(-2.0, "toy/1", None, None)


async def test_without_an_active_version_scores_are_neutral(ranker: Ranker) -> None:
    assert await ranker.score("one") == PromptScore(0.0, "", None, None)
    assert ranker.neutral_total == 0


async def test_a_prompt_the_model_fails_on_is_neutral_and_logged_once(
    ranker: Ranker, publish_version: Publish
) -> None:
    publish_version()
    await ranker.activate(await ranker.load())
    with capture_logs() as logs:
        results = await asyncio.gather(*(ranker.score(text) for text in ("one", "poison", "crash", "two")))
    neutral = PromptScore(-5.0, "", 150.0, 275.0)
    assert [result.ranker_version for result in results] == ["toy/1", "", "", "toy/1"]
    assert results[1] == results[2] == neutral
    assert ranker.neutral_total == 2
    assert [entry["kind"] for entry in logs] == [FailureKind.MODEL]
    assert "poison" not in str(logs)


async def test_score_many_is_neutral_only_where_it_failed(ranker: Ranker, publish_version: Publish) -> None:
    publish_version()
    loaded = await ranker.load()
    scores = await loaded.score_many([words(3), "poison", words(1)])
    assert [(score.score, score.ranker_version) for score in scores] == [
        (-4.0, "toy/1"),
        (-5.0, ""),
        (-2.0, "toy/1"),
    ]
    await loaded.aclose()
    with pytest.raises(ScoringError):
        await loaded.score_many(["one"])


async def test_activation_moves_the_pointer_when_asked(
    ranker: Ranker, publish_version: Publish, repository_path: Path
) -> None:
    publish_version(version=1)
    publish_version(version=2)
    await ranker.activate(await ranker.load("toy", 1), move_pointer=False)
    assert read_active(repository_path) is None
    await ranker.activate(await ranker.load("toy", 2))
    assert read_active(repository_path) == ("toy", 2)


async def test_of_activations_at_once_memory_and_disk_agree(
    ranker: Ranker, publish_version: Publish, repository_path: Path
) -> None:
    loaded = []
    for version in (1, 2, 3):
        publish_version(version=version)
        loaded.append(await ranker.load("toy", version))
    await asyncio.gather(*(ranker.activate(version) for version in loaded))
    assert ranker.active is loaded[-1]
    assert read_active(repository_path) == ("toy", 3)


async def test_a_repository_that_cannot_be_written_is_only_logged(
    ranker: Ranker, publish_version: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(name: str, version: int) -> None:
        raise PermissionError("read-only file system")

    publish_version()
    monkeypatch.setattr(ranker.repository, "set_active", read_only)
    with capture_logs() as logs:
        await ranker.activate(await ranker.load())
    assert [entry["event"] for entry in logs] == ["ranker_pointer_not_moved"]
    assert (await ranker.score("one")).ranker_version == "toy/1"


def damage_truncate_model_and_restate(folder: Path) -> None:
    (folder / MODEL).write_bytes((folder / MODEL).read_bytes()[:200])
    document = json.loads((folder / MANIFEST).read_text())
    document["sha256"] = {name: sha256_of(folder / name) for name in (MODEL, TOKENIZER)}
    (folder / MANIFEST).write_text(json.dumps(document))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "corrupt model": damage_truncate_model_and_restate,
    "half-written version": lambda folder: (folder / MANIFEST).unlink(),
    "wrong sha256": lambda folder: (folder / TOKENIZER).write_text("{}"),
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_bad_version_never_replaces_a_good_one(
    ranker: Ranker, publish_version: Publish, repository_path: Path, damage: str
) -> None:
    publish_version(version=1)
    await ranker.activate(await ranker.load())
    DAMAGES[damage](publish_version(version=2))
    with pytest.raises(RankerVersionError):
        await ranker.load("toy", 2)
    assert (await ranker.score("one")).ranker_version == "toy/1"
    assert read_active(repository_path) == ("toy", 1)


async def test_a_version_damaged_after_it_was_listed_is_refused(
    ranker: Ranker, publish_version: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = publish_version()
    assert ranker.repository.resolve() == folder
    (folder / MODEL).write_bytes(b"")
    monkeypatch.setattr(ranker.repository, "resolve", lambda name, version: folder)
    with pytest.raises(RankerVersionError, match=r"model\.onnx is damaged"):
        await ranker.load()


async def test_hot_swap_loses_and_mixes_nothing(ranker: Ranker, publish_version: Publish) -> None:
    """Version v scores 1000 v - tokens, so every score tells which model made it."""
    for version in (1, 2, 3, 4):
        publish_version(version=version, offset=1000.0 * version)
    await ranker.activate(await ranker.load("toy", 1))
    swapped = asyncio.Event()
    scored: list[tuple[int, PromptScore]] = []

    async def keep_scoring(lane: int) -> None:
        count = lane
        while not swapped.is_set():
            count = count % 10 + 1
            scored.append((count, await ranker.score(words(count))))

    async def swap() -> None:
        for version in (2, 3, 4, 1, 3):
            loaded = await ranker.load("toy", version)
            rescored = await loaded.score_many([words(3)] * 50)
            assert {score.score for score in rescored} == {1000.0 * version - 4}
            await ranker.activate(loaded)
        swapped.set()

    await asyncio.gather(swap(), *(keep_scoring(lane) for lane in range(8)))
    for count, score in scored:
        version = int(score.ranker_version.removeprefix("toy/"))
        assert score.score == 1000.0 * version - (count + 1)
    assert {score.ranker_version for _, score in scored} == {f"toy/{version}" for version in (1, 2, 3, 4)}
    assert ranker.neutral_total == 0
    assert (await ranker.score("one")).ranker_version == "toy/3"


async def test_a_swap_does_not_wait_for_the_old_version_and_lets_it_finish(ranker: Ranker) -> None:
    held, gate = threading.Event(), threading.Event()

    def slow(texts: Sequence[str]) -> npt.NDArray[np.float64]:
        held.set()
        gate.wait()
        return np.full(len(texts), 7.0)

    def fast(texts: Sequence[str]) -> npt.NDArray[np.float64]:
        return np.full(len(texts), 8.0)

    await ranker.activate(loaded_version(1, slow), move_pointer=False)
    before = asyncio.create_task(ranker.score("one"))
    await asyncio.to_thread(held.wait)
    await ranker.activate(loaded_version(2, fast), move_pointer=False)
    assert (await ranker.score("two")).score == 8.0
    assert not before.done()
    gate.set()
    assert await before == PromptScore(7.0, "toy/1", None, None)


async def test_a_version_closes_once_another_replaced_it(ranker: Ranker, publish_version: Publish) -> None:
    publish_version()
    first, second = await ranker.load(), await ranker.load()
    await ranker.activate(first)
    await ranker.activate(first)
    assert await first.submit("one") == -2.0
    await ranker.activate(second)
    await ranker.aclose()
    refused = await first.submit("one")
    assert isinstance(refused, ScoringError)
    assert refused.kind is FailureKind.CLOSED


async def test_a_late_model_gives_neutral_scores_until_it_returns(ranker: Ranker) -> None:
    gate = threading.Event()

    def hung(texts: Sequence[str]) -> npt.NDArray[np.float64]:
        gate.wait()
        return np.full(len(texts), 7.0)

    await ranker.activate(loaded_version(1, hung, timeout_ms=20.0), move_pointer=False)
    scores = await asyncio.gather(*(ranker.score("one") for _ in range(20)))
    assert set(scores) == {PromptScore(0.5, "", None, None)}
    assert ranker.neutral_total == 20
    gate.set()
    while (await ranker.score("one")).score != 7.0:
        await asyncio.sleep(0.01)


async def test_cancelling_a_caller_is_not_a_ranker_failure(ranker: Ranker) -> None:
    gate = threading.Event()

    def held(texts: Sequence[str]) -> npt.NDArray[np.float64]:
        gate.wait()
        return np.zeros(len(texts))

    await ranker.activate(loaded_version(1, held), move_pointer=False)
    caller = asyncio.create_task(ranker.score("one"))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert ranker.neutral_total == 0
    gate.set()


async def test_after_closing_scores_are_neutral(ranker: Ranker, publish_version: Publish) -> None:
    publish_version()
    await ranker.activate(await ranker.load())
    await ranker.aclose()
    assert (await ranker.score("one")).ranker_version == ""


@pytest.mark.parametrize("required", [False, True])
async def test_a_provider_that_is_not_to_be_had_is_told_or_refused(
    repository_path: Path, publish_version: Publish, required: bool
) -> None:
    publish_version()
    asked = ("NoSuchExecutionProvider", "CPUExecutionProvider")
    ranker = Ranker(
        ModelRepository(repository_path), RankerSettings(providers=asked, require_provider=required)
    )
    if required:
        with pytest.raises(RankerVersionError, match="NoSuchExecutionProvider"):
            await ranker.load()
        return
    loaded = await ranker.load()
    assert loaded.providers == ("CPUExecutionProvider",)
    assert loaded.missing_providers == ("NoSuchExecutionProvider",)
    await loaded.aclose()


def test_types_can_be_imported_without_onnxruntime() -> None:
    code = (
        "import sys, rankserve.server.ranking.ranker, rankserve.server.scheduling\n"
        "print(sorted({'onnxruntime', 'tokenizers', 'torch'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


MANIFEST_OF_A_FAKE = RankerManifest(
    name="toy",
    version=1,
    sha256={},
    max_length=8,
    pad_token_id=0,
    precision="fp32",
    base_model="toy",
    neutral_score=0.5,
)


def loaded_version(
    version: int,
    score: Callable[[Sequence[str]], npt.NDArray[np.float64]],
    *,
    timeout_ms: float = LONG_MS,
) -> LoadedVersion:
    manifest = replace(MANIFEST_OF_A_FAKE, version=version)
    return LoadedVersion(manifest, score, max_batch=8, timeout_ms=timeout_ms)
