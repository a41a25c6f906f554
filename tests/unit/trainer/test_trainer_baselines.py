from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast, set_seed

from rankserve.records.prompts import PromptRecord
from rankserve.trainer.evaluation import assessment, sentence_embeddings
from rankserve.trainer.evaluation.assessment import assess
from rankserve.trainer.evaluation.baselines import linear_scores, minilm_scores, minilm_scores_cross_validated
from rankserve.trainer.evaluation.metrics import kendall_tau
from rankserve.trainer.evaluation.sentence_embeddings import PACKAGE, embed, minilm_folder

LENGTHS = {"tiny": 5, "short": 40, "medium": 150, "long": 600}


def records(count: int, seed: int = 0) -> list[PromptRecord]:
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        word = list(LENGTHS)[int(rng.integers(len(LENGTHS)))]
        lengths = tuple(int(LENGTHS[word] * factor) + 1 for factor in rng.uniform(0.8, 1.2, 2))
        filler = " ".join(f"w{number}" for number in rng.integers(0, 20, rng.integers(1, 9)))
        made.append(PromptRecord(str(i), f"{filler} {word}", lengths))
    return made


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of random weights, in the place of MiniLM."""
    folder = tmp_path_factory.mktemp("encoder")
    words = ["[PAD]", "[UNK]", *LENGTHS, *(f"w{number}" for number in range(20))]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=128
    ).save_pretrained(folder)
    set_seed(0)
    shape = BertConfig(  # type: ignore[no-untyped-call]
        vocab_size=len(words),
        hidden_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
    )
    BertModel(shape).save_pretrained(folder)  # type: ignore[no-untyped-call]
    return folder


def test_an_embedding_has_length_1_and_does_not_depend_on_what_else_is_embedded(encoder: Path) -> None:
    prompts = [record.prompt for record in records(40)]
    together = embed(prompts, encoder)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(embed(prompts[7:8], encoder)[0], together[7], atol=1e-5)


def test_linear_models_learn_from_words_and_from_embeddings(encoder: Path) -> None:
    train, judged = records(300), records(100, seed=1)
    lengths = [record.mean_length for record in judged]
    assert kendall_tau(linear_scores(train, judged), lengths) > 0.7
    assert kendall_tau(minilm_scores(train, judged, encoder), lengths) > 0.5
    assert kendall_tau(minilm_scores_cross_validated(judged, encoder), lengths) > 0.4


@pytest.mark.parametrize("learn_elsewhere", [True, False])
def test_minilm_is_a_baseline_where_it_is_installed(
    encoder: Path, learn_elsewhere: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, judged = records(200), records(80, seed=1)
    scores = [-record.mean_length for record in judged]
    absent = assess(scores, judged, train if learn_elsewhere else ())
    assert absent["baseline_minilm_absent"] == 1
    assert "baseline_minilm" not in absent
    monkeypatch.setattr(assessment, "minilm_folder", lambda: encoder)
    figures = assess(scores, judged, train if learn_elsewhere else ())
    assert 0.4 < figures["baseline_minilm"] < 1
    assert "baseline_minilm_absent" not in figures


def test_no_more_prompts_are_embedded_than_the_bound(encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []

    def counted(prompts: list[str], folder: Path) -> object:
        counts.append(len(prompts))
        return embed(prompts, folder)

    monkeypatch.setattr(assessment, "MINILM_PROMPTS", 50)
    monkeypatch.setattr(assessment, "minilm_folder", lambda: encoder)
    monkeypatch.setattr("rankserve.trainer.evaluation.baselines.embed", counted)
    judged = records(80, seed=1)
    figures = assess([-record.mean_length for record in judged], judged, records(200))
    assert counts == [50, 50]
    assert figures["prompts"] == 80


def test_the_package_is_found_without_being_imported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sentence_embeddings, "PACKAGE", "rankserve_no_such_package")
    assert minilm_folder() is None
    package = tmp_path / "rankserve_fake_minilm"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sentence_embeddings, "PACKAGE", package.name)
    assert minilm_folder() == package / "model"


@pytest.mark.skipif(minilm_folder() is None, reason=f"{PACKAGE} is not installed")
def test_the_real_minilm_knows_what_means_the_same() -> None:
    folder = minilm_folder()
    assert folder is not None
    first, second, other = embed(
        ["How tall is Mount Everest?", "What is the height of Everest?", "Write a poem on autumn."], folder
    )
    assert first @ second > 0.8 > 0.3 > first @ other
