"""`rankserve` with a look at its event loop: how long each callback holds it.

    python benchmarks/service/watched_server.py FILE serve ...

Writes a line for every callback into FILE at the end: when it began, as Unix time, and its seconds.
"""

import os
import sys
import time
from array import array
from asyncio import events
from pathlib import Path
from typing import NoReturn


def main() -> None:
    target = Path(sys.argv.pop(1))
    began, held = array("d"), array("d")
    run = events.Handle._run

    def timed(handle: events.Handle) -> None:
        began.append(time.time())
        began_s = time.perf_counter()
        run(handle)
        held.append(time.perf_counter() - began_s)

    events.Handle._run = timed  # type: ignore[method-assign, assignment]
    from rankserve.cli.main import app

    def write() -> None:
        with target.open("w") as file:
            file.writelines(f"{when} {seconds}\n" for when, seconds in zip(began, held, strict=False))

    exit_at_once = os._exit

    def write_and_exit(status: int) -> NoReturn:
        write()
        exit_at_once(status)

    # A server whose scoring thread still runs ends this way.
    os._exit = write_and_exit
    try:
        app()
    finally:
        write()


def longest_holds_s(file: Path, since: float, until: float) -> list[float]:
    """Seconds that callbacks which began between two Unix times held the loop, in order of length."""
    pairs = (line.split() for line in file.read_text().splitlines())
    return sorted(float(seconds) for when, seconds in pairs if since <= float(when) <= until)


if __name__ == "__main__":
    main()
