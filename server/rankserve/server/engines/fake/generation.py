"""One answer as it will be: known whole from the start, told token by token."""

from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from rankserve.server.engines.fake.answers import Answer

FinishReason = Literal["stop", "length"]


@dataclass(slots=True, frozen=True)
class Generation:
    """The tokens of an answer, or of the rest of one.

    Attributes:
        text: what is told in the end.
        tokens: how many are produced, with those that nobody sees: that of the end, and of a stop sequence.
        finish_reason: why it ends.
        stop_reason: the stop sequence that ended it.
        ends: length of the text after each token.
        held_back: characters that are not told before the end, as they may begin a stop sequence.
    """

    text: str
    tokens: int
    finish_reason: FinishReason
    stop_reason: str | None
    ends: tuple[int, ...]
    held_back: int

    def between(self, first: int, last: int) -> str:
        """The text told with the tokens from `first` until before `last`."""
        return self.text[self._told(first) : self._told(last)]

    def _told(self, tokens: int) -> int:
        if tokens >= self.tokens:
            return len(self.text)
        if not tokens:
            return 0
        # Whole words, so that what was told can be gone on from.
        words = bisect_right(self.ends, self.ends[tokens - 1] - self.held_back)
        return self.ends[words - 1] if words else 0


def generate(
    answer: Answer,
    *,
    max_tokens: int,
    min_tokens: int = 0,
    ignore_eos: bool = False,
    stop: tuple[str, ...] = (),
    include_stop: bool = False,
) -> Generation:
    """What an answer becomes under the limits of a request.

    As in vLLM an answer that ends by itself has one token more than words, that of the end, and `min_tokens`
    delays both the end and stop sequences.

    Args:
        answer: where it begins.
        max_tokens: most tokens, at least 1.
        min_tokens: tokens before it may end.
        ignore_eos: goes on until `max_tokens`.
        stop: what ends it where it occurs in its text.
        include_stop: whether the text then ends with it, not before it.
    """
    to_the_end = max(answer.words - answer.begun, min_tokens, 0) + 1
    ends_by_itself = to_the_end <= max_tokens and not ignore_eos
    tokens = to_the_end if ends_by_itself else max_tokens
    pieces = [answer.piece(answer.begun + i) for i in range(tokens - ends_by_itself)]
    text = "".join(pieces)
    ends = tuple(accumulate(len(piece) for piece in pieces))
    found = _first_stop(text, ends, stop, min_tokens)
    if found is not None:
        at, sequence, tokens = found
        return Generation(
            text=text[: at + len(sequence)] if include_stop else text[:at],
            tokens=tokens,
            finish_reason="stop",
            stop_reason=sequence,
            ends=ends[:tokens],
            held_back=0 if include_stop else max(map(len, stop)) - 1,
        )
    return Generation(
        text=text,
        tokens=tokens,
        finish_reason="stop" if ends_by_itself else "length",
        stop_reason=None,
        # The token of the end has no text.
        ends=(*ends, len(text)) if ends_by_itself else ends,
        held_back=max(map(len, stop)) - 1 if stop and not include_stop else 0,
    )


def _first_stop(
    text: str, ends: tuple[int, ...], stop: tuple[str, ...], min_tokens: int
) -> tuple[int, str, int] | None:
    """Where a stop sequence ends the text: its place, itself, and the tokens until it was complete."""
    unlooked = (0, *ends)[min(min_tokens, len(ends))]
    found = None
    for sequence in stop:
        # One that is complete within `min_tokens` is not looked for.
        at = text.find(sequence, max(0, unlooked - len(sequence) + 1))
        if at >= 0:
            tokens = next(i for i, end in enumerate(ends, 1) if end >= at + len(sequence))
            if found is None or (tokens, at) < (found[2], found[0]):
                found = at, sequence, tokens
    return found
