"""What a fake engine answers: words that tell which answer they are of, and where in it.

The word of index 7 of an answer is ``3f9a0c1e.7``; the first part is of the hash of prompt, seed and
temperature. So a prompt that ends with the beginning of its own answer is recognised, and goes on from there.
"""

import hashlib
import math
import random
import re
from dataclasses import dataclass

_FIRST_WORD = re.compile(r"(?P<tag>[0-9a-f]{8})\.0(?![0-9])")
_WORD = re.compile(r"(?P<tag>[0-9a-f]{8})\.(?P<number>[0-9]+)")


@dataclass(slots=True, frozen=True)
class Answer:
    """An answer that may have begun.

    Attributes:
        tag: what its words begin with.
        words: how many there are if nothing ends it before.
        spaced: whether a space goes before the first word.
        begun: words that the prompt has already.
        begun_part: characters of the word after those that the prompt has.
    """

    tag: str
    words: int
    spaced: bool
    begun: int = 0
    begun_part: int = 0

    def piece(self, number: int) -> str:
        """The text of a token, without what the prompt has of it."""
        text = self._whole_piece(number)
        return text[self.begun_part :] if number == self.begun else text

    def going_on(self, text: str) -> "Answer | None":
        """The same answer after this beginning; None if it does not begin so."""
        number, at = 0, 0
        while at < len(text):
            piece = self._whole_piece(number)
            if not text.startswith(piece, at):
                if not piece.startswith(text[at:]):
                    return None
                return Answer(self.tag, self.words, self.spaced, number, len(text) - at)
            number, at = number + 1, at + len(piece)
        return Answer(self.tag, self.words, self.spaced, number)

    def _whole_piece(self, number: int) -> str:
        return f"{' ' if number or self.spaced else ''}{self.tag}.{number}"


@dataclass(slots=True, frozen=True)
class Answers:
    """All answers of an engine.

    Attributes:
        seed: of the engine.
        mean: words of an answer, on average.
        sigma: standard deviation of their logarithm.
    """

    seed: int
    mean: float
    sigma: float

    def to(self, prompt: str, seed: int | None, temperature: float) -> Answer:
        """The answer to a prompt, or what is left of it if the prompt ends with its beginning.

        Args:
            prompt: the whole text before the answer.
            seed: of the request; at temperature 0 it makes no difference.
            temperature: of the request.
        """
        sampling = "greedy" if temperature == 0 else f"{temperature:g}:{seed}"
        for match in reversed(list(_FIRST_WORD.finditer(prompt))):
            for end in {match.start(), max(0, match.start() - 1)}:
                answer = self._from_the_start(prompt[:end], sampling)
                if answer.tag == match["tag"] and (rest := answer.going_on(prompt[end:])) is not None:
                    return rest
        return self._from_the_start(prompt, sampling)

    def _from_the_start(self, prompt: str, sampling: str) -> Answer:
        identity = f"{self.seed}:{sampling}:{prompt}".encode(errors="surrogatepass")
        digest = hashlib.blake2b(identity, digest_size=16).hexdigest()
        mu = math.log(self.mean) - self.sigma**2 / 2
        words = max(1, round(random.Random(digest).lognormvariate(mu, self.sigma)))
        return Answer(digest[:8], words, spaced=bool(prompt) and not prompt[-1].isspace())


def token_numbers(text: str) -> list[int]:
    """The number of each word of an answer, or of the parts it came in, joined.

    A whole answer of n words gives ``list(range(n))``: none is lost, none repeated.

    Raises:
        ValueError: the words are not all of one answer of a fake engine.
    """
    matches = [_WORD.fullmatch(word) for word in text.split()]
    if None in matches or len({match["tag"] for match in matches if match}) > 1:
        raise ValueError("not the text of one answer of a fake engine")
    return [int(match["number"]) for match in matches if match]
