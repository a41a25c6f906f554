"""From chunks, which are not tokens, to tokens."""

from dataclasses import dataclass

from rankserve.server.engines.openai.wire import Chunk

# Text that may follow once all tokens are counted: chunks may be shorter than tokens. A token has some four
# characters; who sends many more does not keep to the length that was asked for.
_CHARACTERS_PER_TOKEN = 16
_CHARACTERS_MORE = 4096


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

    Attributes:
        began: whether anything of an answer came.
        overrun: whether far more text came than so many tokens have; the answer has ended.
    """

    def __init__(self, most: int) -> None:
        self.began = False
        self.overrun = False
        self._most = most
        self._counted = 0
        self._untold = 0
        self._text = ""
        self._finish_reason = ""
        self._input_tokens = 0
        self._more = 0

    @property
    def finished(self) -> bool:
        """Whether the answer has ended, though usage may still follow."""
        return bool(self._finish_reason)

    def add(self, chunk: Chunk) -> Piece | None:
        """What can be told now: tokens without text wait for text, and the other way round."""
        self.began = True
        if chunk.finish_reason:
            self._finish_reason = chunk.finish_reason
        if chunk.usage is not None:
            self._input_tokens = chunk.usage.prompt_tokens
            # Amid the answer a count beyond all there may be is no count.
            if self.finished or chunk.usage.completion_tokens <= self._most:
                self._count_to(chunk.usage.completion_tokens)
        if chunk.text:
            self._add_text(chunk.text)
        return self._take() if self._text and self._untold else None

    def done(self) -> None:
        """The stream says that it is complete: that ends an answer which did not say why it ends."""
        if self.began and not self.finished:
            self._finish_reason = "length" if self._counted == self._most else "stop"

    def end(self) -> Piece:
        """The last piece; call it when the stream has ended and `finished` is true."""
        if self._text and not self._untold:
            # Text that belongs to no token that the endpoint told of.
            self._untold = 1
        last = self._take()
        reason = "length" if self._finish_reason == "length" else "stop"
        return Piece(last.count, last.text, reason, self._input_tokens)

    def _add_text(self, text: str) -> None:
        if self._counted == self._most and not self.finished and not self._untold:
            self._more += len(text)
            if self._more > _CHARACTERS_PER_TOKEN * self._most + _CHARACTERS_MORE:
                self.overrun = True
                self._finish_reason = "length"
        if not self._untold:
            self._count_to(self._counted + 1)
        self._text += text

    def _take(self) -> Piece:
        piece = Piece(self._untold, self._text)
        self._untold, self._text = 0, ""
        return piece

    def _count_to(self, total: int) -> None:
        total = min(total, self._most)
        if total > self._counted:
            self._untold += total - self._counted
            self._counted = total
