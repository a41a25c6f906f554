"""Settings from options, environment and a file; where each came from, and what is wrong with it."""

import json
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import EnvSettingsSource

from rankserve.server.settings import ServerSettings
from rankserve.server.settings_table import ENVIRONMENT_PREFIX, SETTINGS, Topic, option_name, variable_name

CONFIG_VARIABLE = f"{ENVIRONMENT_PREFIX}CONFIG"

# Kubernetes sets these in every pod beside a Service that is named rankserve or rankserve-something.
_SERVICE_LINK = re.compile(
    r"\w+_SERVICE_(HOST|PORT(_\w+)?)=.*|\w+_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?=.*"
    r"|\w+_PORT=(tcp|udp|sctp)://.*"
)


class ConfigurationError(ValueError):
    """Settings that cannot be. The message has a line for each problem."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


@dataclass(slots=True, frozen=True)
class LoadedSettings:
    """Settings, and where those come from that are not defaults: an option, a variable or a file."""

    settings: ServerSettings
    origins: Mapping[str, str]


def load_settings(options: Mapping[str, object], config: Path | None = None) -> LoadedSettings:
    """Settings from options, else from the environment, else from a file, else the defaults.

    Args:
        options: those that were given, by name of the setting.
        config: a TOML file; None takes the one that RANKSERVE_CONFIG names, if any.

    Raises:
        ConfigurationError: unknown names or impossible values.
        OSError: the file cannot be read.
    """
    if config is None and (named := os.environ.get(CONFIG_VARIABLE)):
        config = Path(named)
    in_file = _read_file(config) if config is not None else {}
    in_environment = {
        name: value
        for name, value in EnvSettingsSource(ServerSettings)().items()
        if not _links_service(variable_name(name), value)
    }
    problems = [
        *(_unknown(f"{config}: {name}", name, SETTINGS) for name in in_file if name not in SETTINGS),
        *_unknown_variables(),
    ]
    if problems:
        raise ConfigurationError(problems)
    origins = {
        **dict.fromkeys(in_file, str(config)),
        **{name: variable_name(name) for name in in_environment},
        **{name: option_name(name, value) for name, value in options.items()},
    }
    try:
        settings = ServerSettings.model_validate({**in_file, **in_environment, **options})
    except ValidationError as error:
        raise ConfigurationError(_problem(details, origins) for details in error.errors()) from None
    return LoadedSettings(settings, origins)


def to_toml(loaded: LoadedSettings) -> str:
    """All settings as a file that `load_settings` reads, with the source of each."""
    values = loaded.settings.model_dump(mode="json")
    lines: list[str] = []
    for topic in Topic:
        lines += ["", f"# {topic}"] if lines else [f"# {topic}"]
        for name, setting in SETTINGS.items():
            if setting.topic is topic:
                origin = loaded.origins.get(name, "default")
                if values[name] is None:
                    lines.append(f"# {name} is not set: {setting.unset}")
                else:
                    lines.append(f"{name} = {_toml_value(values[name])}  # {_one_line(origin)}")
    return "\n".join(lines) + "\n"


def _read_file(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigurationError([f"{path}: not TOML: {error}"]) from None


def _unknown_variables() -> list[str]:
    known = {CONFIG_VARIABLE, *map(variable_name, SETTINGS)}
    return [
        _unknown(name, name.upper(), known)
        for name, value in os.environ.items()
        if name.upper().startswith(ENVIRONMENT_PREFIX)
        and name.upper() not in known
        and not _links_service(name, value)
    ]


def _links_service(variable: str, value: str) -> bool:
    return _SERVICE_LINK.fullmatch(f"{variable}={value}") is not None


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    closest = get_close_matches(name, list(known), n=1, cutoff=0)
    return f"{what}: there is no such setting; the closest is {closest[0]}"


def _problem(details: ErrorDetails, origins: Mapping[str, str]) -> str:
    name = str(details["loc"][0])
    origin = origins[name]
    source = origin if origin in (option_name(name), variable_name(name)) else f"{origin}: {name}"
    return f"{source}: {details['input']!r} {details['msg'].removeprefix('Input ')}"


def _toml_value(value: object) -> str:
    # JSON's strings, numbers and booleans are TOML's, but for the one control character it leaves as it is.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _one_line(text: str) -> str:
    return text if text.isprintable() else repr(text)
