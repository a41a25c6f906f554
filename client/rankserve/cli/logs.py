"""Logs of the commands: to stderr, so that stdout stays for results.

Lines of other libraries, which use Python's logging, take the same form.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from structlog.stdlib import ProcessorFormatter
from structlog.typing import Processor

from rankserve.cli.log_lines import LineWriter, LogHandler
from rankserve.cli.log_privacy import withhold_private


@contextmanager
def log_to_stderr(log_format: str = "auto", log_level: str = "info") -> Iterator[None]:
    """Logs to the stderr of this moment while it is open; then all is as before.

    Args:
        log_format: "json", "console", or "auto" for lines for people on a terminal and JSON otherwise.
        log_level: "debug", "info", "warning" or "error". Debug lines of other libraries are never logged:
            what is in them is not for us to decide.
    """
    level = logging.getLevelNamesMapping()[log_level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    on_console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    formatter = ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            withhold_private,
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
            if on_console
            else structlog.processors.JSONRenderer(),
        ],
    )
    old_structlog = structlog.get_config() if structlog.is_configured() else None
    root, ours = logging.getLogger(), logging.getLogger("rankserve")
    old_root = root.handlers[:], root.level, ours.level
    writer = LineWriter(sys.stderr)
    handler = LogHandler(writer)
    handler.setFormatter(formatter)
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.INFO))
    ours.setLevel(level)
    logging.captureWarnings(True)
    structlog.configure(
        processors=[*shared, ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.handlers[:], root.level, ours.level = old_root[0], *old_root[1:]
        if old_structlog is None:
            structlog.reset_defaults()
        else:
            structlog.configure(**old_structlog)
        writer.close()
