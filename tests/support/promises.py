"""How much of a promise is tested: its short form with all other tests, all of it by `make promises`."""

import os

# Not RANKSERVE_...: those are settings of the servers that tests start.
FULL = os.environ.get("PROMISES") == "full"


def note(promise: str, **figures: object) -> None:
    """Prints figures of a promise, which `make promises` shows."""
    print(f"\n{promise}: " + ", ".join(f"{name} {value}" for name, value in figures.items()))
