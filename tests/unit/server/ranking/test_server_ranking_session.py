import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from rankserve.records.ranker_version import MODEL, TOKENIZER, RankerVersionError, read_manifest
from rankserve.server.ranking.errors import ProviderUnavailableError, ScoringError
from rankserve.server.ranking.session import OnnxScorer

Publish = Callable[..., Path]


def open_scorer(folder: Path, **options: object) -> OnnxScorer:
    return OnnxScorer(folder, read_manifest(folder), **options)  # type: ignore[arg-type]


def words(count: int) -> str:
    return " ".join(["one"] * count)


def test_scores_keep_the_order_of_the_prompts(publish_version: Publish) -> None:
    counts = [random.Random(7).randint(1, 40) for _ in range(200)]
    scores = open_scorer(publish_version(max_length=64)).score([words(count) for count in counts])
    assert scores.dtype == np.float64
    assert scores.tolist() == [-(count + 1) for count in counts]  # and one for </s>


def test_a_score_does_not_depend_on_batch_mates(publish_version: Publish) -> None:
    scorer = open_scorer(publish_version(max_length=64))
    prompts = [words(count) for count in (3, 50, 1, 17, 2, 60, 33)]
    alone = [scorer.score([prompt])[0] for prompt in prompts]
    assert scorer.score(prompts).tolist() == alone
    assert scorer.score(prompts[::-1]).tolist() == alone[::-1]


@pytest.mark.parametrize(("side", "kept"), [("left", "poison"), ("right", "one")])
def test_truncation_keeps_the_side_of_the_manifest(publish_version: Publish, side: str, kept: str) -> None:
    scorer = open_scorer(publish_version(truncation_side=side))
    prompt = words(50) + " poison"
    if kept == "poison":
        with pytest.raises(ScoringError, match="not finite"):
            scorer.score([prompt])
    else:
        assert scorer.score([prompt]).tolist() == [-12]


def test_a_prompt_of_1_mib_is_scored(publish_version: Publish) -> None:
    assert open_scorer(publish_version()).score(["one " * (1 << 18)]).tolist() == [-12]


def test_no_prompts_no_scores(publish_version: Publish) -> None:
    assert open_scorer(publish_version()).score([]).shape == (0,)


@pytest.mark.parametrize(
    ("prompt", "reason"), [("one poison two", "not finite"), ("one crash", "the model failed")]
)
def test_a_bad_score_is_an_error_that_does_not_quote_the_prompt(
    publish_version: Publish, prompt: str, reason: str
) -> None:
    scorer = open_scorer(publish_version())
    with pytest.raises(ScoringError, match=reason) as raised:
        scorer.score(["two", prompt])
    assert prompt not in str(raised.value)
    assert scorer.score(["two"]).tolist() == [-2]


def test_text_that_is_not_unicode_is_an_error(publish_version: Publish) -> None:
    with pytest.raises(ScoringError, match="tokenizer failed"):
        open_scorer(publish_version()).score(["\ud800"])


@pytest.mark.parametrize("file", [MODEL, TOKENIZER])
def test_a_corrupt_file_is_refused_by_name(publish_version: Publish, file: str) -> None:
    folder = publish_version()
    (folder / file).write_bytes((folder / file).read_bytes()[:100])
    with pytest.raises(RankerVersionError, match=rf"{file} cannot be loaded"):
        open_scorer(folder)


def test_a_model_with_other_outputs_is_refused(publish_version: Publish) -> None:
    with pytest.raises(RankerVersionError, match=r"outputs \['logits'\]; a ranker takes"):
        open_scorer(publish_version(output="logits"))


def test_a_model_too_short_for_its_max_length_is_refused(publish_version: Publish) -> None:
    with pytest.raises(RankerVersionError, match="max_length 32"):
        open_scorer(publish_version(max_length=32, positions=20))


def test_a_required_provider_that_is_missing_is_refused(publish_version: Publish) -> None:
    with pytest.raises(ProviderUnavailableError, match="NoSuchExecutionProvider"):
        open_scorer(
            publish_version(),
            providers=("NoSuchExecutionProvider", "CPUExecutionProvider"),
            require_provider=True,
        )


def test_a_preferred_provider_that_is_missing_is_reported(publish_version: Publish) -> None:
    with capture_logs() as logs:
        scorer = open_scorer(publish_version(), providers=("NoSuchExecutionProvider",))
    assert scorer.providers == ("CPUExecutionProvider",)
    assert [entry["missing"] for entry in logs] == [["NoSuchExecutionProvider"]]
    assert logs[0]["log_level"] == "warning"
