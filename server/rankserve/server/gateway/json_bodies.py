"""Bodies in JSON: read as Python does, which is how engines in Python do, and changed as little as can be."""

import json
from collections.abc import Mapping
from typing import Any

from rankserve.server.gateway.errors import RefusalError

# What is set at the top level of a body; None takes out what is there.
Fields = Mapping[str, Any]


def json_object(raw: bytes) -> dict[str, Any] | None:
    """None if it is no object, or no JSON, which is for the engine to say.

    Raises:
        RefusalError: it may be one, and cannot be read here: its nesting is too deep, or a number too long.
    """
    try:
        body = json.loads(raw)
    except (json.JSONDecodeError, UnicodeDecodeError):
        return None
    except (ValueError, RecursionError):
        raise _unusable("the body has too deep a nesting, or too long a number") from None
    return body if isinstance(body, dict) else None


def with_fields(raw: bytes, body: Mapping[str, Any], fields: Fields) -> bytes:
    """The body with these fields: all else byte for byte as it came, if it has none of them.

    Args:
        raw: the body as it came.
        body: what `json_object` gave for it.
        fields: to set.

    Raises:
        RefusalError: it has some of them, and cannot be written again.
    """
    new = {name: value for name, value in fields.items() if value is not None}
    if json.detect_encoding(raw) == "utf-8" and not any(name in body for name in fields):
        return _spliced(raw, new, alone=not body) if new else raw
    rest = {name: value for name, value in body.items() if name not in fields}
    try:
        return _compact({**rest, **new})
    except (ValueError, RecursionError):
        raise _unusable("the body has too deep a nesting, or a number that JSON does not know") from None


def _spliced(raw: bytes, new: Fields, *, alone: bool) -> bytes:
    head, brace, rest = raw.partition(b"{")
    return b"".join((head, brace, _compact(new)[1:-1], b"" if alone else b",", rest))


def _compact(fields: Fields) -> bytes:
    try:
        return json.dumps(fields, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        # Half of a surrogate pair, which only an escape can write.
        return json.dumps(fields, separators=(",", ":"), allow_nan=False).encode()


def _unusable(problem: str) -> RefusalError:
    return RefusalError(400, "invalid_body", problem)
