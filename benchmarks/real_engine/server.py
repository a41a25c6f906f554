"""vLLM's OpenAI server as a child process."""

import os
import signal
import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx2

SERVED_MODEL = "smollm2"
READY_TIMEOUT_S = 300.0
_POLL_S = 0.2
# vLLM ends its own processes on SIGTERM; what is left after this long is killed.
_STOP_TIMEOUT_S = 20.0
_LOG_TAIL = 2000
_SITE = Path(__file__).parent / "site"


class EngineError(RuntimeError):
    """vLLM did not start; says where its log is."""


@dataclass(slots=True, frozen=True)
class EngineOptions:
    """How vLLM is started.

    Attributes:
        python: of vLLM's environment.
        model: folder of the LLM.
        log: what it says is appended here.
        port: on loopback; 0 for any that is free.
        max_sequences: at most so many requests in the batch.
        max_model_len: tokens of a prompt with its answer.
        kv_cache_gib: memory for the KV cache.
        extra: further arguments of vLLM's server.
    """

    python: Path
    model: Path
    log: Path
    port: int = 0
    max_sequences: int = 16
    max_model_len: int = 2048
    kv_cache_gib: int = 1
    extra: tuple[str, ...] = ()


class RealEngine:
    """A vLLM server that runs within a `with` block.

    It orders its own queue by the `priority` of requests, lower first.
    """

    def __init__(self, options: EngineOptions) -> None:
        self.options = options
        self.port = options.port or _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Of the OpenAI API."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def pid(self) -> int:
        """Of the server's first process, and of the process group that holds all of them.

        Raises:
            EngineError: it was not started.
        """
        if self._process is None:
            raise EngineError("vLLM is not started")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Starts it and waits until it answers.

        Raises:
            EngineError: it ended, or does not answer in time; or there is no such model or environment.
        """
        self.launch()
        try:
            self.wait_until_ready(timeout_s)
        except BaseException:
            self.kill()
            raise

    def launch(self) -> None:
        """Starts it without waiting.

        Raises:
            EngineError: there is no such model or environment, or it runs already.
        """
        if self.running:
            raise EngineError("vLLM runs already")
        for path, command in ((self.options.python, "environment"), (self.options.model, "model")):
            if not path.exists():
                raise EngineError(
                    f"{path} does not exist: `python -m benchmarks.real_engine {command}` makes it"
                )
        self.options.log.parent.mkdir(parents=True, exist_ok=True)
        with self.options.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment(),
                cwd=self.options.log.parent,
                # A process group of its own, in which its workers are found, and which Ctrl-C does not reach.
                start_new_session=True,
            )

    def wait_until_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Waits until it answers.

        Raises:
            EngineError: it ended, or does not answer in time.
        """
        deadline = time.monotonic() + timeout_s
        while not self.answers():
            if not self.running:
                raise EngineError(f"vLLM ended while it started: {self._said()}")
            if time.monotonic() > deadline:
                raise EngineError(f"vLLM did not answer within {timeout_s:g} s: {self._said()}")
            time.sleep(_POLL_S)

    def answers(self) -> bool:
        """Whether it says that it is well."""
        try:
            return httpx2.get(f"http://127.0.0.1:{self.port}/health", timeout=5.0).status_code == 200
        except httpx2.TransportError:
            return False

    def wait(self) -> None:
        """Until it ends by itself.

        Raises:
            EngineError: it has ended.
        """
        if self._process is not None:
            self._process.wait()
        raise EngineError(f"vLLM ended: {self._said()}")

    def stop(self) -> None:
        """Ends it, and waits until all of its processes are gone."""
        if self._process is None:
            return
        if self.running:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_TIMEOUT_S)
        self.kill()

    def kill(self) -> None:
        """Kills all of its processes at once, as a crash of the machine would."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _command(self) -> list[str]:
        options = self.options
        return [
            *(str(options.python.absolute()), "-m", "vllm.entrypoints.openai.api_server"),
            *("--host", "127.0.0.1", "--port", str(self.port)),
            *("--model", str(options.model.absolute()), "--served-model-name", SERVED_MODEL),
            *("--scheduling-policy", "priority", "--max-num-seqs", str(options.max_sequences)),
            *("--max-model-len", str(options.max_model_len), "--dtype", "float32", "--enforce-eager"),
            *options.extra,
        ]

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PYTHONPATH": str(_SITE),
            "HF_HUB_OFFLINE": "1",
            "VLLM_CPU_KVCACHE_SPACE": str(self.options.kv_cache_gib),
            "VLLM_NO_USAGE_STATS": "1",
        }

    def _said(self) -> str:
        tail = self.options.log.read_bytes()[-_LOG_TAIL:].decode(errors="replace")
        return f"{self.options.log} ends in\n{tail}"


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
