"""The id of the request that a message is about, for the lines that are logged while it is served."""

from typing import Any

from structlog.contextvars import bind_contextvars, unbind_contextvars

_MAX_ID = 128


def bind_request_id(message: Any) -> None:
    """Binds ``request_id`` in structlog's context of this task, which the tasks it starts inherit.

    A message about several requests has no one id: whoever takes it apart binds that of each.
    """
    request_id = getattr(message, "request_id", "") or getattr(getattr(message, "request", None), "id", "")
    bind_id(request_id)


def bind_id(request_id: object) -> None:
    """Binds an id that nobody has checked yet. What is no id must not end up in a log."""
    if isinstance(request_id, str) and 0 < len(request_id) <= _MAX_ID and request_id.isprintable():
        bind_contextvars(request_id=request_id)
    else:
        unbind_contextvars("request_id")
