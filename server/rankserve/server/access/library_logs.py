"""What gRPC, asyncio, uvicorn and httpx2 say, without the values they say it of.

They print exceptions whole, and metadata that they cannot decode; either may hold a token or a prompt.
"""

import asyncio
import logging
import os
import traceback
from types import TracebackType
from typing import Any

import structlog

log = structlog.get_logger(__name__)

_LIBRARIES = ("grpc", "asyncio", "uvicorn", "httpx2", "httpcore2")


class _WithoutValues(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        # The message as it is written in the library's source: what is put into it stays out.
        text = record.msg if isinstance(record.msg, str) else type(record.msg).__name__
        error = record.exc_info[1] if record.exc_info else None
        log.log(record.levelno, "library_log", library=record.name, message=text, **_error_fields(error))


def keep_values_out_of_library_logs(loop: asyncio.AbstractEventLoop) -> None:
    """From now on they log through ours, without the values of arguments and exceptions."""
    for name in _LIBRARIES:
        logger = logging.getLogger(name)
        logger.handlers = [_WithoutValues(logging.WARNING)]
        logger.propagate = False
    loop.set_exception_handler(_log_loop_exception)
    if os.environ.get("GRPC_TRACE"):
        log.warning("grpc_trace_prints_metadata", remedy="unset GRPC_TRACE: its output holds tokens")


def _log_loop_exception(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    log.error(
        "library_log",
        library="asyncio",
        message=context["message"],
        **_error_fields(context.get("exception")),
    )


def _error_fields(error: BaseException | None) -> dict[str, object]:
    if error is None:
        return {}
    return {"error": type(error).__name__, "raised_at": _places(error.__traceback__)}


def _places(trace: TracebackType | None) -> list[str]:
    frames = traceback.extract_tb(trace)
    return [f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in frames]
