"""`rankserve profile measure` as a process against a running engine, and what follows from its table."""

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import httpx2
import pytest
from support.fake_process import FakeProcess
from support.server_process import COMMAND, environment

pytest.importorskip("numpy", reason="needs the extra server: pip install 'rankserve[server]'")

from rankserve.server.engines.simulated.profiles import find_profile


@pytest.fixture
def engine() -> Iterator[FakeProcess]:
    options = ("--ttft-s", "0", "--itl-s", "0.01", "--itl-per-sequence-s", "0.002", "--max-num-seqs", "3")
    with FakeProcess(*options, "--api-key", "secret") as process:
        yield process


def start(engine: FakeProcess, output: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            *(str(COMMAND), "profile", "measure", "--url", engine.base_url, "--output", str(output)),
            *("--max-sequences", "3", "--quick", "--api-key-env", "ENGINE_KEY", *options),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**environment(), "ENGINE_KEY": "secret"},
    )


def test_the_command_it_prints_makes_a_profile(engine: FakeProcess, tmp_path: Path) -> None:
    output = tmp_path / "steps.csv"
    stdout, stderr = (process := start(engine, output, "--json")).communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert "3 sequences at" in stderr
    assert "Z measuring starts, " in stderr
    assert any("Z measuring: " in line and " settings in " in line for line in stderr.splitlines())
    result = json.loads(stdout)
    command = ["64" if word == "KV_BLOCKS" else word for word in result["command"]]
    assert command[0] == "rankserve"
    command[command.index("--max-model-len") + 1] = "1024"
    added = subprocess.run(
        [str(COMMAND), *command[1:], "--json"], capture_output=True, text=True, check=False
    )
    assert added.returncode == 0, added.stderr
    assert json.loads(added.stdout)["method"] == "interpolate"
    profile = find_profile(str(tmp_path / "fake-model.toml"))
    assert (profile.max_sequences, profile.kv_blocks) == (3, 64)
    # A busy machine makes steps longer, never shorter: 10 ms and 2 ms for each sequence.
    assert profile.step_ms(prefill_tokens=0, decode_sequences=3, context_tokens=300) > 14
    assert profile.step_ms(prefill_tokens=0, decode_sequences=1, context_tokens=100) > 10


def test_ctrl_c_leaves_nothing(engine: FakeProcess, tmp_path: Path) -> None:
    output = tmp_path / "steps.csv"
    # A shell that started the tests in the background has them, and their children, ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = start(engine, output)
    signal.signal(signal.SIGINT, before)
    _wait(lambda: any(request["state"] == "running" for request in _requests(engine)))
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert stdout == ""
    assert not output.exists()
    _wait(lambda: all(request["state"] not in ("running", "waiting") for request in _requests(engine)))


def test_nobody_there_and_no_key_are_one_line_each(engine: FakeProcess, tmp_path: Path) -> None:
    stdout, stderr = (process := start(engine, tmp_path / "a.csv", "--api-key-env", "NONE")).communicate()
    assert (process.returncode, stdout) == (1, "")
    assert stderr == "error: the environment variable 'NONE' of --api-key-env is not set\n"
    engine.kill()
    stdout, stderr = (process := start(engine, tmp_path / "a.csv")).communicate(timeout=60)
    assert (process.returncode, stdout) == (1, "")
    assert stderr == f"error: nobody answers at {engine.base_url}: start the engine first\n"


def _requests(engine: FakeProcess) -> list[dict[str, Any]]:
    url = engine.base_url.removesuffix("/v1") + "/requests"
    requests: list[dict[str, Any]] = httpx2.get(url, trust_env=False).json()["requests"]
    return requests


def _wait(condition: Callable[[], bool]) -> None:
    end_s = monotonic() + 60
    while not condition():
        assert monotonic() < end_s
        sleep(0.05)
