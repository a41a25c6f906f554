"""The command line: one set of defaults, help for newcomers, hints for what is missing."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from rich.text import Text
from typer.main import get_command
from typer.testing import CliRunner

pytest.importorskip("pydantic", reason="needs the extra server: pip install 'rankserve[server]'")

from rankserve.cli.main import app

COMMANDS = (
    "demo",
    "train",
    "evaluate",
    "export",
    "models",
    "serve",
    "proxy",
    "health",
    "admin",
    "load",
    "simulate",
    "report",
    "collect",
    "fake-engine",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert "Usage:" in result.output


def commands_below(command: Any) -> Iterator[Any]:
    """Of click, whose classes are typer's own in some versions of it."""
    yield command
    for below in getattr(command, "commands", {}).values():
        yield from commands_below(below)


def test_no_help_has_brackets_that_rich_takes_for_markup() -> None:
    for command in commands_below(get_command(app)):
        texts = [command.help, *(getattr(parameter, "help", None) for parameter in command.params)]
        for text in filter(None, texts):
            assert Text.from_markup(text).plain == text


def test_help_needs_none_of_the_extras() -> None:
    """The command is part of the base install: its help must not import what only an extra brings."""
    program = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from rankserve.cli.main import app\n"
        f"for command in {COMMANDS!r}:\n"
        "    assert CliRunner().invoke(app, [command, '--help']).exit_code == 0\n"
        "heavy = {'torch', 'transformers', 'onnxruntime', 'numpy', 'scipy', 'matplotlib', 'structlog'}\n"
        "heavy |= {'pydantic_settings', 'starlette', 'uvicorn'}\n"
        "print(sorted(heavy & sys.modules.keys()))\n"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("command", "blocked", "extra"),
    [
        (["serve"], "structlog", "server"),
        (["serve", "--print-config"], "pydantic_settings", "server"),
        (["proxy", "--upstream", "http://127.0.0.1:9"], "httpx2", "server"),
        (["demo"], "scipy", "load,server"),
        (["demo"], "structlog", "load,server"),
        (["evaluate", ".", "--data", "pyproject.toml"], "torch", "trainer"),
        (["train", "--config", "pyproject.toml"], "torch", "trainer"),
        (["simulate", "--synthetic", "5"], "pyarrow", "simulate"),
        (
            ["collect", "pyproject.toml", "--url", "http://127.0.0.1:9/v1", "--model", "m", "-o", "no.jsonl"],
            "httpx2",
            "collect",
        ),
        (["fake-engine", "--port", "0"], "uvicorn", "server"),
        (["export", ".", "--repository", ".", "--name", "n"], "onnx", "exporter"),
    ],
)
def test_a_missing_extra_names_the_command_that_installs_it(
    command: list[str], blocked: str, extra: str
) -> None:
    # A finder, not None in sys.modules: scipy looks there for torch and would use what it finds.
    program = (
        "import sys\n"
        "class Blocked:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {blocked!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Blocked())\n"
        f"from rankserve.cli.main import app\napp({command!r})\n"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert output.returncode == 1
    assert f"pip install 'rankserve[{extra}]'" in output.stderr
    assert "Traceback" not in output.stderr
