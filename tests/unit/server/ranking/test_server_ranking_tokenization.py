from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from rankserve.server.ranking.tokenization import CHARACTERS_PER_TOKEN, PromptTokenizer

CORPUS = ["The quick brown fox jumps over the lazy dog.", "Explain in detail how a lighthouse lamp works."]
TEMPLATES = ["</s> $A", "<s> $A </s>", "$A"]


@pytest.fixture
def save(tmp_path: Path) -> Path:
    return tmp_path / "tokenizer.json"


def byte_level(template: str) -> Tokenizer:
    """As OPT's: byte-level BPE with special tokens set by a template."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "<pad>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    if template != "$A":
        specials = [(token, tokenizer.token_to_id(token)) for token in ("<s>", "</s>") if token in template]
        tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=specials)
    return tokenizer


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("words", [1, 9, 10, 11, 60, 2000])
def test_equals_the_tokenizer_s_own_truncation_of_the_whole_prompt(
    save: Path, template: str, side: str, words: int
) -> None:
    reference = byte_level(template)
    reference.save(str(save))
    prompt = " ".join(f"fox{index}" for index in range(words))
    tokenizer = PromptTokenizer(save, max_length=24, truncation_side=side)
    reference.enable_truncation(24, direction=side)
    assert tokenizer.encode([prompt, "dog"]) == [reference.encode(prompt).ids, reference.encode("dog").ids]


def test_ignores_truncation_and_padding_left_in_the_file(save: Path) -> None:
    trained = byte_level("</s> $A")
    expected = trained.encode(CORPUS[0]).ids
    trained.enable_truncation(3)
    trained.enable_padding(length=500)
    trained.save(str(save))
    assert PromptTokenizer(save, max_length=100, truncation_side="left").encode(CORPUS[:1]) == [expected]


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_prompt_of_1_mib_is_cut_before_it_is_tokenised(
    save: Path, side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    byte_level("</s> $A").save(str(save))
    tokenizer = PromptTokenizer(save, max_length=16, truncation_side=side)
    seen: list[str] = []
    tokenise = tokenizer._tokenizer

    class Spy:
        def encode_batch_fast(self, prompts: list[str], **options: bool) -> object:
            seen.extend(prompts)
            return tokenise.encode_batch_fast(prompts, **options)

        def __getattr__(self, name: str) -> object:
            return getattr(tokenise, name)

    monkeypatch.setattr(tokenizer, "_tokenizer", Spy())
    prompt = "begin " + "fox " * (1 << 18) + "end"
    (ids,) = tokenizer.encode([prompt])
    assert len(ids) == 16
    assert len(seen[0]) == 16 * CHARACTERS_PER_TOKEN
    assert seen[0] in (prompt[: len(seen[0])] if side == "right" else prompt[-len(seen[0]) :])


@pytest.mark.parametrize("prompt", ["", "\n", "é漢😀" * 500, "\0", " " * 100_000])
def test_any_text_stays_within_max_length(save: Path, prompt: str) -> None:
    byte_level("</s> $A").save(str(save))
    (ids,) = PromptTokenizer(save, max_length=8, truncation_side="left").encode([prompt])
    assert 1 <= len(ids) <= 8


def test_a_prompt_without_tokens_gives_none(save: Path) -> None:
    byte_level("$A").save(str(save))
    assert PromptTokenizer(save, max_length=8, truncation_side="left").encode([""]) == [[]]


def test_max_length_must_leave_room_beside_special_tokens(save: Path) -> None:
    byte_level("<s> $A </s>").save(str(save))
    with pytest.raises(ValueError, match="max_length 2 leaves no room"):
        PromptTokenizer(save, max_length=2, truncation_side="left")


def test_an_unreadable_file_is_a_value_error(save: Path) -> None:
    save.write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer\.json cannot be loaded"):
        PromptTokenizer(save, max_length=8, truncation_side="left")
