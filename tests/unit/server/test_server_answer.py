"""The packed text of an answer against a plain list of its pieces."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from rankserve.server.answer import AnswerText

PIECES = st.lists(st.tuples(st.integers(1, 3), st.text(max_size=4)), max_size=12)


def answer_of(pieces: list[tuple[int, str]]) -> AnswerText:
    answer = AnswerText()
    for count, text in pieces:
        answer.append(count, text)
    return answer


def starts_of(pieces: list[tuple[int, str]]) -> list[int]:
    """The token that each piece begins with, and where the next would."""
    starts = [0]
    for count, _ in pieces:
        starts.append(starts[-1] + count)
    return starts


def check(answer: AnswerText, pieces: list[tuple[int, str]]) -> None:
    starts = starts_of(pieces)
    assert answer.tokens == starts[-1]
    assert answer.whole() == "".join(text for _, text in pieces)
    for begin, first in enumerate(starts):
        for end, last in enumerate(starts[begin:], begin):
            assert answer.between(first, last) == "".join(text for _, text in pieces[begin:end])
    for token in set(range(starts[-1] + 3)) - set(starts):
        with pytest.raises(ValueError, match=f"token {token} does not begin a piece"):
            answer.between(0, token)


@given(pieces=PIECES)
def test_an_answer_is_the_list_of_its_pieces(pieces: list[tuple[int, str]]) -> None:
    answer = answer_of(pieces)
    check(answer, pieces)
    answer.close()
    answer.close()
    check(answer, pieces)
    check(AnswerText.restore(answer.whole(), answer.tokens, answer.boundaries()), pieces)


def test_boundaries_that_are_none_are_refused() -> None:
    answer = answer_of([(1, "so"), (2, "the answer")])
    answer.close()
    with pytest.raises(ValueError, match="no boundaries"):
        AnswerText.restore(answer.whole(), 3, answer.boundaries()[:-1])
