"""The hint for a missing optional dependency."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Turns the failed import of a third-party package into the command that installs it, exit status 1.

    Args:
        extra: its name, or several with commas between.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "rankserve":
            raise
        print(
            f"this command needs the package {error.name!r}: pip install 'rankserve[{extra}]'",
            file=sys.stderr,
        )
        raise SystemExit(1) from None
