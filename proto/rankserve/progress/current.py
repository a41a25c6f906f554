"""Whom the code that runs now reports to."""

import os
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from contextvars import ContextVar
from typing import TextIO, TypeVar

from rankserve.progress.lines import LinesInTime, stamped
from rankserve.progress.reporter import Reporter
from rankserve.progress.stage import Stage

T = TypeVar("T")

_current: ContextVar[Reporter] = ContextVar("reporter")
_SILENCE = Reporter()


def stage(
    name: str, total: int | None = None, unit: str = "", done: int = 0
) -> AbstractContextManager[Stage]:
    """Work that takes long, for as long as the context is open. See ``Stage``."""
    return _current.get(_SILENCE).stage(name, total, unit, done)


def track(items: Collection[T], name: str, unit: str) -> Iterator[T]:
    """The items, as a stage: one is done when the next is asked for."""
    with stage(name, len(items), unit) as tracked:
        for item in items:
            yield item
            tracked.advance()


def tell(line: str) -> None:
    """A line that stays, above those of the open stages."""
    _current.get(_SILENCE).tell(line)


@contextmanager
def report_to(reporter: Reporter) -> Iterator[None]:
    """What runs within reports to ``reporter``. Threads that it starts report to nobody by themselves."""
    token = _current.set(reporter)
    try:
        yield
    finally:
        _current.reset(token)


@contextmanager
def report_on(stream: TextIO) -> Iterator[None]:
    """What runs within is shown on ``stream``: live on a terminal, else in lines with the time in UTC."""
    if stream.isatty() and os.environ.get("TERM") != "dumb":
        from rankserve.progress.live import Live

        reporter: Reporter = Live(stream)
    else:
        reporter = LinesInTime(stamped(stream))
    with report_to(reporter), closing(reporter):
        yield
