"""`rankserve serve`: an option for each setting, and what it says before it serves."""

import inspect
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

pytest.importorskip("pydantic_settings", reason="needs the extra server: pip install 'rankserve[server]'")

from rankserve.cli.main import app
from rankserve.cli.serve import serve
from rankserve.server.settings import ServerSettings
from rankserve.server.settings_table import SETTINGS, option_name

OF_THE_COMMAND = {"config", "print_config", "json_output"}


def run(*options: str) -> Result:
    return CliRunner().invoke(app, ["serve", *options], env={"COLUMNS": "250", "NO_COLOR": "1"})


def test_every_setting_has_an_option_and_every_option_a_setting() -> None:
    parameters = inspect.signature(serve).parameters
    assert parameters.keys() - OF_THE_COMMAND == ServerSettings.model_fields.keys()
    assert all(parameters[name].default is None for name in SETTINGS), "what is not given must not override"


def test_help_tells_the_defaults_of_the_settings() -> None:
    help_text = re.sub(r"[\s│]+", " ", run("--help").output)
    settings = ServerSettings()
    for name, setting in SETTINGS.items():
        assert f"{option_name(name)} " in help_text
        assert f"{setting.description} Default: {setting.shown_default}." in help_text
        value = settings.model_dump(mode="json")[name]
        shown = setting.shown_default
        if isinstance(value, bool):
            assert shown == ("on" if value else "off")
        else:
            assert shown == (str(value) if value not in (None, "") else setting.unset)


def test_printed_settings_can_be_fed_back(tmp_path: Path) -> None:
    first = run("--max-waiting", "5", "--no-fair-share", "--shed", "--token-file", "token", "--print-config")
    assert first.exit_code == 0
    path = tmp_path / "rankserve.toml"
    path.write_text(first.stdout, encoding="utf-8")
    second = run("--config", str(path), "--print-config")
    assert second.exit_code == 0

    def values(printed: str) -> list[str]:
        return [line.partition("  # ")[0] for line in printed.splitlines()]

    assert values(second.stdout) == values(first.stdout)
    assert {"max_waiting = 5", "fair_share = false", "shed = true", 'token_file = "token"'} <= set(
        values(second.stdout)
    )


def test_impossible_settings_are_told_one_a_line() -> None:
    result = CliRunner().invoke(
        app, ["serve", "--port", "x", "--print-config"], env={"RANKSERVE_MAX_WAITING": "0"}
    )
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        "rankserve serve: --port: 'x' should be a valid integer, unable to parse string as an integer",
        "rankserve serve: RANKSERVE_MAX_WAITING: '0' should be greater than or equal to 1",
    ]
