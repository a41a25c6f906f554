"""`rankserve fake-engine` as a process that a test may kill and start again on its port."""

import json
import signal
import subprocess
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import httpx2
from support.server_process import COMMAND


class FakeProcess:
    """A context manager: it is ended by its pid. Started again it keeps its port.

    Args:
        options: of the command, but for the port.
    """

    def __init__(self, *options: str) -> None:
        self._options = options
        self._port = 0
        self.base_url = ""
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end(signal.SIGTERM)

    def start(self) -> None:
        command = [str(COMMAND), "fake-engine", "--json", "--port", str(self._port), *self._options]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        listening = json.loads(self._process.stdout.readline())
        self._port = int(listening["address"].rpartition(":")[2])
        self.base_url = listening["url"]

    def kill(self) -> None:
        """kill -9."""
        self.end(signal.SIGKILL)

    def end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.communicate(timeout=60)

    def set_faults(self, faults: Mapping[str, Mapping[str, Any]]) -> None:
        """Takes the place of those there were."""
        httpx2.delete(self._url("/faults"), trust_env=False)
        response = httpx2.post(self._url("/faults"), json={"faults": faults}, trust_env=False)
        assert response.status_code == 200, response.text

    def injected(self) -> dict[str, int]:
        """How often each fault has happened."""
        injected: dict[str, int] = httpx2.get(self._url("/faults"), trust_env=False).json()["injected"]
        return injected

    def _url(self, path: str) -> str:
        return self.base_url.removesuffix("/v1") + path
