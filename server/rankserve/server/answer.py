"""The text of an answer, told from any token at which a piece of it ended."""

import struct
from array import array
from bisect import bisect_left


class AnswerText:
    """Grows by pieces of one or more tokens; `close` packs it once nothing more comes.

    Attributes:
        tokens: how many there are.
    """

    __slots__ = ("_characters", "_pieces", "_starts", "tokens")

    def __init__(self) -> None:
        self.tokens = 0
        self._pieces: list[str] = []
        # The token that each piece begins with, and once closed its first character.
        self._starts = array("I")
        self._characters: array[int] | None = None

    def append(self, count: int, text: str) -> None:
        self._starts.append(self.tokens)
        self._pieces.append(text)
        self.tokens += count

    def between(self, first: int, last: int) -> str:
        """The text of tokens `first` to `last`, without the latter.

        Raises:
            ValueError: one of them is inside a piece, or beyond the end.
        """
        begin, end = self._index(first), self._index(last)
        if self._characters is None:
            return "".join(self._pieces[begin:end])
        if begin >= end:
            return ""
        stop = self._characters[end] if end < len(self._characters) else None
        return self._pieces[0][self._characters[begin] : stop]

    def whole(self) -> str:
        return "".join(self._pieces)

    def close(self) -> None:
        """Packs it: pieces of a few characters take many times their length."""
        if self._characters is None:
            self._characters = array("I")
            position = 0
            for piece in self._pieces:
                self._characters.append(position)
                position += len(piece)
            self._pieces = [self.whole()]

    def boundaries(self) -> bytes:
        """Where the pieces of a closed answer begin, for `restore`."""
        starts = self._starts
        characters = self._characters or array("I")
        return struct.pack(f"<{2 * len(starts)}I", *starts, *characters)

    @classmethod
    def restore(cls, text: str, tokens: int, boundaries: bytes) -> "AnswerText":
        """A closed answer from its parts. Raises ValueError if they are not those of one."""
        if len(boundaries) % 8:
            raise ValueError(f"{len(boundaries)} bytes are no boundaries")
        half = len(boundaries) // 8
        numbers = struct.unpack(f"<{2 * half}I", boundaries)
        answer = cls()
        answer.tokens = tokens
        answer._pieces = [text]
        answer._starts = array("I", numbers[:half])
        answer._characters = array("I", numbers[half:])
        return answer

    def _index(self, token: int) -> int:
        if token == self.tokens:
            return len(self._starts)
        index = bisect_left(self._starts, token)
        if index == len(self._starts) or self._starts[index] != token:
            raise ValueError(f"token {token} does not begin a piece")
        return index
