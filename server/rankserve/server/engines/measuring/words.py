"""Prompts of a wanted number of tokens, each other than all before, so that no prefix cache knows them."""

import random

# Most tokenizers have each of these, with the space before it, as one token.
_WORDS = """
    the of and to in is was for that with as his on be at by had not are but from or have they which one you
    were all her she there would their we him been has when who will no more if out so up said what its
    about than into them can only other time new some could these two may first then do any like my now over
    such our man me even most made after also did many off before must well back through years where much
    your way down should because long each just those people how too good world very still year work last
    life state never place same another know while great house might high water old small end day part found
    both under left number city young come best since again home right think
"""


class Prompts:
    """Texts of random words.

    Args:
        seed: other texts for another one.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._words = _WORDS.split()
        self._tokens_per_word = 1.0
        self._tokens_besides = 0.0

    def of_words(self, count: int) -> str:
        return " ".join(self._random.choices(self._words, k=max(1, count)))

    def of_tokens(self, tokens: int) -> str:
        """As the engine counts them, as far as `calibrate` knows."""
        return self.of_words(round((tokens - self._tokens_besides) / self._tokens_per_word))

    def calibrate(self, short: tuple[int, int], long: tuple[int, int]) -> None:
        """Learns how many tokens words are, from (words, tokens) of two texts."""
        self._tokens_per_word = max(0.1, (long[1] - short[1]) / (long[0] - short[0]))
        self._tokens_besides = max(0.0, short[1] - self._tokens_per_word * short[0])
