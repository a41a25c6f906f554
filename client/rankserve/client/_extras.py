"""Packages that only an extra brings."""

from importlib.util import find_spec


class MissingExtra(ModuleNotFoundError):  # noqa: N818 - reads as what it is
    """A part of RankServe was imported without the packages of its extra."""

    def __init__(self, extra: str, package: str) -> None:
        super().__init__(f"{package} is missing: pip install 'rankserve[{extra}]'", name=package)


def require(extra: str, *packages: str) -> None:
    """Raises MissingExtra for the first of the packages that is not installed."""
    for package in packages:
        if find_spec(package) is None:
            raise MissingExtra(extra, package)
