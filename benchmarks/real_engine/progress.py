"""What the commands say while they work; figures go to stdout."""

import sys
from datetime import datetime


def to_stderr(line: str) -> None:
    print(f"{datetime.now():%H:%M:%S} {line}", file=sys.stderr, flush=True)
