"""Answers: the same for the same question, gone on from anywhere, ended as vLLM ends them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankserve.server.engines.fake import token_numbers
from rankserve.server.engines.fake.answers import Answers
from rankserve.server.engines.fake.generation import generate

ANSWERS = Answers(seed=0, mean=30.0, sigma=1.0)
PROMPTS = st.text(alphabet=st.sampled_from("ab .0\n3f9<|>"), min_size=1, max_size=40)


def text(prompt: str, max_tokens: int = 100_000) -> str:
    generation = generate(ANSWERS.to(prompt, None, 1.0), max_tokens=max_tokens)
    return generation.between(0, generation.tokens)


def test_an_answer_depends_on_prompt_seed_and_temperature_alone() -> None:
    first = ANSWERS.to("a prompt", 1, 0.7)
    assert ANSWERS.to("a prompt", 1, 0.7) == first
    others = [ANSWERS.to("b prompt", 1, 0.7), ANSWERS.to("a prompt", 2, 0.7), ANSWERS.to("a prompt", 1, 0.8)]
    others.append(Answers(seed=1, mean=30.0, sigma=1.0).to("a prompt", 1, 0.7))
    assert len({first.tag, *(answer.tag for answer in others)}) == 5


def test_at_temperature_0_the_seed_makes_no_difference() -> None:
    assert ANSWERS.to("a prompt", 1, 0.0) == ANSWERS.to("a prompt", 2, 0.0)


def test_the_mean_length_is_as_set() -> None:
    lengths = [ANSWERS.to(f"prompt {i}", None, 1.0).words for i in range(4000)]
    assert sum(lengths) / len(lengths) == pytest.approx(30, rel=0.1)
    assert {Answers(0, 12.0, 0.0).to(f"prompt {i}", None, 1.0).words for i in range(20)} == {12}


@given(PROMPTS, st.data())
def test_an_answer_goes_on_where_it_was_interrupted(prompt: str, data: st.DataObject) -> None:
    whole = generate(ANSWERS.to(prompt, None, 1.0), max_tokens=200)
    sent = data.draw(st.integers(1, whole.tokens - 1) if whole.tokens > 1 else st.just(1))
    beginning = whole.between(0, sent)
    rest = generate(ANSWERS.to(prompt + beginning, None, 1.0), max_tokens=200 - sent)
    assert beginning + rest.between(0, rest.tokens) == whole.between(0, whole.tokens)
    assert sent + rest.tokens == whole.tokens
    assert rest.finish_reason == whole.finish_reason


def test_an_answer_goes_on_within_a_word() -> None:
    whole = text("a prompt")
    for cut in range(len(" 01234567.0"), len(whole) + 1):
        assert whole[:cut] + text("a prompt" + whole[:cut]) == whole


def test_an_answer_to_a_later_turn_is_another() -> None:
    first = text("a prompt")
    second = text(f"a prompt{first}\nand then?\n")
    assert second.split()[0] != first.split()[0]
    assert token_numbers(second)[0] == 0


def test_the_text_of_another_prompt_is_not_gone_on_from() -> None:
    assert token_numbers(text("a prompt" + text("another prompt")))[0] == 0


def test_token_numbers_tell_what_is_missing_or_repeated() -> None:
    whole = text("a prompt")
    words = whole.split()
    assert token_numbers(whole) == list(range(len(words)))
    assert token_numbers(f"{words[0]} {words[2]} {words[2]}") == [0, 2, 2]
    with pytest.raises(ValueError, match="one answer"):
        token_numbers(f"{words[0]} {text('another prompt')}")
    with pytest.raises(ValueError, match="one answer"):
        token_numbers("words of somebody else")


def test_an_answer_that_ends_by_itself_has_one_token_without_text() -> None:
    answer = ANSWERS.to("a prompt", None, 1.0)
    generation = generate(answer, max_tokens=answer.words + 1)
    assert (generation.tokens, generation.finish_reason) == (answer.words + 1, "stop")
    assert len(generation.text.split()) == answer.words
    generation = generate(answer, max_tokens=answer.words)
    assert (generation.tokens, generation.finish_reason) == (answer.words, "length")
    assert len(generation.text.split()) == answer.words


def test_ignoring_the_end_gives_exactly_max_tokens() -> None:
    generation = generate(ANSWERS.to("a prompt", None, 1.0), max_tokens=500, min_tokens=500, ignore_eos=True)
    assert (generation.tokens, generation.finish_reason) == (500, "length")
    assert token_numbers(generation.text) == list(range(500))


def test_min_tokens_delays_the_end() -> None:
    answer = Answers(0, 5.0, 0.0).to("a prompt", None, 1.0)
    assert generate(answer, max_tokens=100).tokens == 6
    assert generate(answer, max_tokens=100, min_tokens=20).tokens == 21


def test_a_stop_sequence_ends_the_text_before_it() -> None:
    answer = Answers(0, 30.0, 0.0).to("a prompt", None, 1.0)
    generation = generate(answer, max_tokens=100, stop=(".20", ".12"))
    assert (generation.finish_reason, generation.stop_reason, generation.tokens) == ("stop", ".12", 13)
    assert generation.text.endswith(answer.tag)
    assert generate(answer, max_tokens=100, stop=(".12",), include_stop=True).text == generation.text + ".12"


def test_a_stop_sequence_within_min_tokens_is_not_looked_for() -> None:
    answer = Answers(0, 40.0, 0.0).to("a prompt", None, 1.0)
    assert generate(answer, max_tokens=100, stop=(".3",)).tokens == 4
    assert generate(answer, max_tokens=100, stop=(".3",), min_tokens=10).tokens == 31


@given(st.integers(1, 40), st.integers(1, 7))
def test_no_text_is_told_that_a_stop_sequence_takes_back(stop_at: int, step: int) -> None:
    answer = Answers(0, 30.0, 0.0).to("a prompt", None, 1.0)
    generation = generate(answer, max_tokens=100, stop=(f"{answer.tag}.{stop_at} ", "never in there"))
    told = [*range(0, generation.tokens, step), generation.tokens]
    assert "".join(map(generation.between, told, told[1:])) == generation.text
