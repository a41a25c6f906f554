"""Who did what to a running server."""

import structlog

from rankserve.server.access.principal import current_principal

log = structlog.get_logger(__name__)

_MAX_TEXT = 64


def log_admin_action(action: str, **fields: str | int) -> None:
    """A line for an action that was asked for, whether or not it succeeds. Texts are a caller's, and cut."""
    cut = {name: value[:_MAX_TEXT] if isinstance(value, str) else value for name, value in fields.items()}
    log.warning("admin_action", action=action, by=current_principal().name, **cut)
