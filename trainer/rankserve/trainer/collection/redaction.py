"""Messages of an endpoint, made fit to be shown and stored: some repeat what they were sent."""

from collections.abc import Iterable

# Long enough that no error message has it in common with a prompt by chance.
_PIECE = 24
_TOO_SHORT_TO_TELL = 4


def redacted(message: str, secret: str, texts: Iterable[str]) -> str:
    """The message without the secret; cut off where it repeats a piece of one of the texts."""
    if secret:
        message = message.replace(secret, "[key]")
    found = [place for text in texts if (place := _quoted_at(message, text)) is not None]
    return f"{message[: min(found)].rstrip()} [rest left out: it repeats the prompt]" if found else message


def _quoted_at(message: str, text: str) -> int | None:
    text = text.strip()
    if len(text) <= _PIECE:
        place = message.find(text) if len(text) >= _TOO_SHORT_TO_TELL else -1
        return None if place < 0 else place
    for place in range(len(message) - _PIECE + 1):
        if message[place : place + _PIECE] in text:
            return place
    return None
