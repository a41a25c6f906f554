"""`rankserve fake-engine` as a process, the way users' tests run it."""

import json
import signal
import subprocess
from collections.abc import Iterator

import openai
import pytest
from support.server_process import COMMAND

OPTIONS = ("--port", "0", "--json", "--ttft-s", "0", "--itl-s", "0.001")


def start(*options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(COMMAND), "fake-engine", *OPTIONS, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def process() -> Iterator[subprocess.Popen[str]]:
    started = start("--model", "llama", "--model", "alias", "--faults", "error=0.5", "--api-key", "secret")
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


def test_it_says_where_it_listens_serves_and_ends_at_sigterm(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    listening = json.loads(process.stdout.readline())
    assert listening["models"] == ["llama", "alias"]
    assert listening["url"] == f"http://{listening['address']}/v1"
    assert listening["address"].startswith("127.0.0.1:")
    client = openai.OpenAI(base_url=listening["url"], api_key="secret", max_retries=0)
    failed = 0
    for _ in range(30):
        try:
            client.completions.create(model="alias", prompt="one", max_tokens=3)
        except openai.InternalServerError:
            failed += 1
    assert 0 < failed < 30
    client.close()
    process.send_signal(signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout, stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--faults", "fire=1"), "there is no fault 'fire'"),
        (("--scheduling", "lifo"), "fcfs or priority"),
        (("--kv-tokens", "5"), "max_model_len"),
    ],
)
def test_what_cannot_be_ends_with_a_line_that_says_so(options: tuple[str, ...], message: str) -> None:
    process = start(*options)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (2, "")
    assert stderr.startswith("rankserve fake-engine: ")
    assert message in stderr
    assert stderr.count("\n") == 1
