"""What the simulated LLM answers: how long, and with which words."""

import random

_WORDS = ("so", "the", "answer", "goes", "on", "one", "token", "at", "a", "time", "until", "its", "length")
# Median 90 and sigma 1: mean 148, p99 921 tokens, about as heavy a tail as chat traffic has.
_LENGTH_MU = 4.5
_LENGTH_SIGMA = 1.0


def output_length(identity: str, replay_output_tokens: int | None, max_tokens: int) -> int:
    """Tokens of the answer, 1 to `max_tokens`: as recorded in a replay, else a draw seeded by `identity`."""
    if replay_output_tokens is None:
        draw = random.Random(identity).lognormvariate(_LENGTH_MU, _LENGTH_SIGMA)
        replay_output_tokens = round(draw)
    return max(1, min(replay_output_tokens, max_tokens))


def token_text(index: int) -> str:
    """The text of the token at this index of an answer."""
    return _WORDS[index % len(_WORDS)] + " "
