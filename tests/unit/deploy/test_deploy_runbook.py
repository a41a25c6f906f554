"""The commands of docs/operations.md and of deploy/ are ones there are, and every alert has a section."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from rankserve.cli.main import app

ROOT = Path(__file__).parents[3]
RUNBOOK = ROOT / "docs" / "operations.md"
TEXTS = (RUNBOOK, ROOT / "deploy" / "kubernetes" / "README.md", ROOT / "deploy" / "Containerfile")


def commands(text: str) -> list[str]:
    """What follows `rankserve` in blocks of code and in `code` within a sentence."""
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL))
    lines = re.findall(r"(?:^|&& |-- |/)rankserve ((?!\.)[a-z].*?)(?: &&|  +#| \||$)", blocks, re.MULTILINE)
    return [*lines, *re.findall(r"`rankserve ([^`]+)`", text)]


def assert_exists(line: str) -> None:
    """Raises AssertionError if a command or an option of the line is unknown."""
    command: Any = get_command(app)
    path = ["rankserve"]
    words = shlex.split(line.split(" > ")[0])
    while words and hasattr(command, "commands"):
        path.append(words.pop(0))
        found = command.commands.get(path[-1])
        assert found is not None, f"no command {' '.join(path)!r} in: rankserve {line}"
        command = found
    known = {
        option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
    }
    for word in words:
        if word.startswith("-"):
            assert word.split("=")[0] in {*known, "--help"}, f"no option {word} in: rankserve {line}"


def test_the_runbook_has_commands() -> None:
    found = commands(RUNBOOK.read_text(encoding="utf-8"))
    assert len(found) > 20
    assert "health --address $TARGET" in found


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_commands_exist(path: Path) -> None:
    for line in commands(path.read_text(encoding="utf-8")):
        assert_exists(line)


@pytest.mark.parametrize("line", ["serve --no-such-option", "servee", "models list --repo x"])
def test_commands_that_do_not_exist_are_noticed(line: str) -> None:
    with pytest.raises(AssertionError, match="in: rankserve"):
        assert_exists(line)


def test_every_alert_has_a_section() -> None:
    headings = re.findall(r"^#+ (.+)$", RUNBOOK.read_text(encoding="utf-8"), re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    rules = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text(encoding="utf-8"))
    alerts = [rule for group in rules["groups"] for rule in group["rules"] if "alert" in rule]
    assert alerts
    text = RUNBOOK.read_text(encoding="utf-8")
    for alert in alerts:
        page, _, anchor = alert["annotations"]["runbook_url"].partition("#")
        assert page == "docs/operations.md"
        assert anchor in anchors, alert["alert"]
        assert f"`{alert['alert']}`" in text


def test_links_within_the_runbook_lead_somewhere() -> None:
    text = RUNBOOK.read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    links = re.findall(r"\]\(#([^)]+)\)", text)
    assert links
    assert set(links) <= anchors
