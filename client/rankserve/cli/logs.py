"""Logs of the commands: to stderr, so that stdout stays for results."""

import sys

import structlog


def log_to_stderr() -> None:
    """Lines for people on a terminal, JSON otherwise."""
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            renderer,
        ],
        # Looked up for each line: whoever calls a command inside another program may replace stderr.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )
