"""`rankserve health` as a container's health check uses it: a process that asks a real server."""

import signal
import subprocess
from pathlib import Path

from support.server_process import COMMAND, SERVICES, ServerProcess, StartServer, environment


def ask(server: ServerProcess, *options: str) -> tuple[int, str]:
    command = [str(COMMAND), "health", "--address", server.address, *options]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    return done.returncode, done.stdout.strip()


def test_health_through_the_life_of_a_server(start_server: StartServer, tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    token_file.write_text("a token that probes do not have")
    server = start_server("--token-file", str(token_file), "--drain-notice-s", "5")
    for options in ((), *(("--service", name) for name in SERVICES)):
        assert ask(server, *options) == (0, "SERVING")
    server.send(signal.SIGTERM)
    answers = [ask(server)]
    while answers[-1] == (0, "SERVING"):
        answers.append(ask(server))
    assert answers[-1] == (1, "NOT_SERVING")
    assert server.stop() == 0
    assert ask(server) == (1, "")
