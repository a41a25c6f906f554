"""What must not be in a log whatever a line says: the second line of defence, after not logging it at all."""

import re
from collections.abc import Mapping
from pathlib import Path

from structlog.typing import EventDict, WrappedLogger

_WITHHELD = "[withheld]"
_PRIVATE = frozenset(
    {
        "answer",
        "api_key",
        "authorization",
        "content",
        "cookie",
        "headers",
        "messages",
        "metadata",
        "password",
        "prompt",
        "prompts",
        "ranking_text",
        "secret",
        "text",
        "token",
    }
)
_CREDENTIALS = re.compile(r"\bbearer\s+[^\s'\"]+", re.IGNORECASE)


def withhold_private(_logger: WrappedLogger, _level: str, line: EventDict) -> EventDict:
    """A structlog processor: withholds values of names such as `prompt`, credentials, and objects.

    Of an object only the type is logged: its text may hold anything, a request's holds the prompt.
    """
    return {key: _public(key, value) for key, value in line.items()}


def _public(key: object, value: object) -> object:
    if str(key).lower() in _PRIVATE:
        return _WITHHELD
    match value:
        case str():
            return _CREDENTIALS.sub(_WITHHELD, str(value))
        case None | bool() | int() | float():
            return value
        case Path():
            return str(value)
        case Mapping():
            return {str(name): _public(name, inner) for name, inner in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_public("", inner) for inner in value]
        case _:
            return f"<{type(value).__name__}>"
