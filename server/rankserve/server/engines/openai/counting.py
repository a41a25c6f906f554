"""From chunks, which are not tokens, to tokens."""

from dataclasses import dataclass

from rankserve.server.engines.openai.wire import Chunk


@dataclass(slots=True, frozen=True)
class Piece:
    """New tokens of an answer and their text; `finished` as in `TokensProduced`."""

    count: int
    text: str
    finished: str = ""
    input_tokens: int = 0


class TokenCount:
    """Counts the tokens of one stream.

    An endpoint that tells the count with each chunk is believed; else a chunk with text is taken for one
    token, and what was missed is added at the end, where the usage tells. It never counts more than there
    may be.

    Args:
        most: tokens the answer may have.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._counted = 0
        self._untold = 0
        self._text = ""
        self._exact = False
        self._finish_reason = ""
        self._input_tokens = 0

    @property
    def finished(self) -> bool:
        """Whether the answer has ended, though usage may still follow."""
        return bool(self._finish_reason)

    def add(self, chunk: Chunk) -> Piece | None:
        """What can be told now: tokens without text wait for text, and the other way round."""
        if chunk.finish_reason:
            self._finish_reason = chunk.finish_reason
        if chunk.usage is not None:
            self._input_tokens = chunk.usage.prompt_tokens
            # Without choices, or at the end, everybody tells; before that only who was asked and can.
            self._exact = self._exact or not chunk.finish_reason
            self._count_to(chunk.usage.completion_tokens)
        if chunk.text and not self._exact and chunk.usage is None:
            self._count_to(self._counted + 1)
        self._text += chunk.text
        return self._take() if self._text and self._untold else None

    def end(self) -> Piece:
        """The last piece; call it when the stream has ended and `finished` is true."""
        if self._text and not self._untold:
            # Text that belongs to no token that the endpoint told of.
            self._untold = 1
        last = self._take()
        reason = "length" if self._finish_reason == "length" else "stop"
        return Piece(last.count, last.text, reason, self._input_tokens)

    def _take(self) -> Piece:
        piece = Piece(self._untold, self._text)
        self._untold, self._text = 0, ""
        return piece

    def _count_to(self, total: int) -> None:
        total = min(total, self._most)
        if total > self._counted:
            self._untold += total - self._counted
            self._counted = total
