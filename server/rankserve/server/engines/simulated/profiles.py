"""Profiles by name: those of ``profiles.toml`` beside this file, and users' own by path."""

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from rankserve.server.engines.simulated.profile import Profile
from rankserve.server.engines.simulated.profile_files import make_profile, read_profile

__all__ = ["Profile", "UnknownProfileError", "find_profile", "profiles"]

BUILT_IN = Path(__file__).with_name("profiles.toml")


class UnknownProfileError(ValueError):
    """No profile of that name."""


@cache
def _sections() -> dict[str, dict[str, Any]]:
    return tomllib.loads(BUILT_IN.read_text(encoding="utf-8"))


@cache
def _built_in(name: str) -> Profile:
    return make_profile(name, _sections()[name], BUILT_IN)


def profiles() -> dict[str, Profile]:
    """All built-in profiles by name."""
    return {name: _built_in(name) for name in _sections()}


def find_profile(name_or_path: str) -> Profile:
    """A built-in profile by name, or a user's by the path of its ``.toml`` file.

    Raises:
        UnknownProfileError: neither; lists the names there are.
        ProfileError: the file, or a file of tables that it names, cannot be used.
    """
    if name_or_path.endswith(".toml"):
        return read_profile(Path(name_or_path))
    if name_or_path not in _sections():
        raise UnknownProfileError(
            f"unknown profile {name_or_path!r}; there are: {', '.join(sorted(_sections()))}, or give the path"
            " of a .toml file of your own (`rankserve profile add` writes one)"
        )
    return _built_in(name_or_path)
