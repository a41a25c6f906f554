"""The training configurations that ship with RankServe, and how the command line finds one."""

from importlib import resources
from pathlib import Path


def recipe_names() -> list[str]:
    """What ships, sorted: "synthetic" is the name of ``synthetic.toml``."""
    return sorted(path.stem for path in _folder().glob("*.toml"))


def find_config(config: str) -> Path:
    """The file that is meant by a path, or by the bare name of a recipe; a file of that name goes first.

    Raises:
        FileNotFoundError: it is neither. The message lists the recipes.
    """
    path = Path(config)
    if path.is_file():
        return path
    if config in recipe_names():
        return _folder() / f"{config}.toml"
    raise FileNotFoundError(
        f"{config} is neither a file nor a recipe that ships with RankServe ({', '.join(recipe_names())})"
    )


def _folder() -> Path:
    return Path(str(resources.files(__package__)))
