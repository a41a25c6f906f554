"""What the commands of `rankserve models` share."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from rankserve.records.active_pointer import Reference
from rankserve.records.ranker_version import RankerVersionError, ranker_names, version_numbers

Repository = Annotated[
    Path, typer.Option("--repository", "-r", exists=True, file_okay=False, help="Folder of ranker versions.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Version = Annotated[int | None, typer.Argument(min=1, help="Its version; default: the newest.")]

DEFAULT_REPOSITORY = Path("models")
# Of the largest version that the API can name.
_MOST_DIGITS = 10


@contextmanager
def refusals() -> Iterator[None]:
    """Ends the command with an error on stderr and exit status 1 where a version or the disk says no."""
    try:
        yield
    except (RankerVersionError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


def text(reference: Reference) -> str:
    return "{}/{}".format(*reference)


def chosen(repository: Path, name: str, version: int | None) -> Reference:
    """The version that was asked for: `NAME VERSION`, `NAME/VERSION`, or the newest of `NAME`.

    Raises:
        RankerVersionError: it is not there.
    """
    if version is None and "/" in name:
        name, _, number = name.rpartition("/")
        if not (number.isdecimal() and len(number) <= _MOST_DIGITS):
            raise RankerVersionError(f"{number!r:.40} is no version of {name}: give a number, as in {name}/3")
        version = int(number)
    there = version_numbers(repository, name) if name in ranker_names(repository) else []
    if not there:
        raise RankerVersionError(f"{repository} holds no ranker {name!r}; see `rankserve models list`")
    if version is None:
        return name, there[-1]
    if version not in there:
        raise RankerVersionError(f"{repository} holds no {name}/{version}; see `rankserve models list`")
    return name, version


def tell_active_is_gone(active: Reference) -> None:
    """On stderr."""
    remedy = "choose one with `rankserve models activate`"
    typer.echo(f"error: the active version {text(active)} is not there; {remedy}", err=True)


def size(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 100_000 else f"{size_bytes / 1e3:.1f} kB"
