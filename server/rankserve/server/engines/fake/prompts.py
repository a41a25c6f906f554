"""Prompts as one text, and their tokens: one a word."""

from collections.abc import Iterable
from zlib import crc32

_VOCABULARY = 32000


def render_chat(
    messages: Iterable[tuple[str, str]], *, add_generation_prompt: bool, continue_final_message: bool
) -> str:
    """Messages, as (role, content), by the fake model's chat template.

    With `continue_final_message` the text ends with the final message, as open as an answer would be.
    """
    turns = [f"<|{role}|>\n{content}" for role, content in messages]
    text = "\n".join(turns)
    if continue_final_message or not turns:
        return text
    return f"{text}\n<|assistant|>\n" if add_generation_prompt else f"{text}\n"


def count_tokens(text: str) -> int:
    """At least 1: models have a token for the beginning."""
    return max(1, len(text.split()))


def token_ids(text: str) -> list[int]:
    return [crc32(word.encode(errors="surrogatepass")) % _VOCABULARY for word in text.split()]
