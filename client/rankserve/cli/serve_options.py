"""The options of `rankserve serve`: one for each setting, made from the server's table."""

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from rankserve.server.settings_table import SETTINGS, Setting


def with_option_for_each_setting(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command that takes ``**options`` an option for each setting; those not given are None.

    Values stay text: the settings say what they must be, wherever they come from.
    """
    signature = inspect.signature(command)
    own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    settings = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_annotation(setting))
        for name, setting in SETTINGS.items()
    ]
    command.__dict__["__signature__"] = signature.replace(parameters=[*settings, *own])
    return command


def _annotation(setting: Setting) -> Any:
    is_flag = isinstance(setting.default, bool)
    option = typer.Option(
        help=f"{setting.description} Default: {setting.shown_default}.",
        metavar=None if is_flag else setting.value,
        rich_help_panel=setting.topic,
    )
    return Annotated[(bool if is_flag else str) | None, option]
