"""The `rankserve` command, as a user runs it."""

import json
import subprocess
import sys
from typing import Any

_COMMAND = (sys.executable, "-c", "from rankserve.cli.main import app; app()")


def rankserve(*arguments: object) -> None:
    """Runs a command of RankServe; its output goes to stderr.

    Raises:
        subprocess.CalledProcessError: it failed, and has said why.
    """
    subprocess.run([*_COMMAND, *map(str, arguments)], check=True, stdout=sys.stderr)


def rankserve_json(*arguments: object) -> Any:
    """What a command of RankServe prints with `--json`.

    Raises:
        subprocess.CalledProcessError: it failed, and has said why.
    """
    command = [*_COMMAND, *map(str, arguments), "--json"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
