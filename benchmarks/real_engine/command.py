"""The `rankserve` command, as a user runs it."""

import subprocess
import sys


def rankserve(*arguments: object) -> None:
    """Runs a command of RankServe; its output goes to stderr.

    Raises:
        subprocess.CalledProcessError: it failed, and has said why.
    """
    command = [sys.executable, "-c", "from rankserve.cli.main import app; app()", *map(str, arguments)]
    subprocess.run(command, check=True, stdout=sys.stderr)
