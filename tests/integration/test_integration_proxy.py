"""`rankserve proxy` as a process, the way an operator runs it."""

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer

import httpx2
import pytest
from support.openai_endpoint import FakeEndpoint
from support.server_process import COMMAND, environment
from support.toy_ranker import publish

from rankserve.server.scheduling.engine_priority import engine_priority


@contextmanager
def proxy(*options: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """The process, and what it says once it listens."""
    command = [str(COMMAND), "proxy", "--port", "0", "--json", *options]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )
    try:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline() or "{}")
    finally:
        process.kill()
        process.communicate()


def test_it_sets_priorities_forwards_and_drains(tmp_path: Path) -> None:
    publish(tmp_path)
    with FakeEndpoint(delay_s=1.0) as endpoint:
        upstream = endpoint.url.removesuffix("/v1")
        options = ("--upstream", upstream, "--policy", "ranking", "--repository", str(tmp_path))
        with proxy(*options) as (process, listening):
            assert (listening["policy"], listening["ranker_version"]) == ("ranking", "toy/1")
            address = f"http://{listening['address']}"
            assert httpx2.get(f"{address}/rankserve/health").json()["status"] == "serving"
            body = {"model": "m", "prompt": "one two", "max_tokens": 5}
            # The answer takes a second, and the proxy must not end before it is there.
            Timer(0.4, process.send_signal, (signal.SIGTERM,)).start()
            answer = httpx2.post(f"{address}/v1/completions", json=body)
            assert answer.status_code == 200
            assert answer.json()["usage"]["completion_tokens"] <= 5
            assert process.wait(20) == 0
            _, printed = process.communicate()
        assert "one two" not in printed
        assert endpoint.asked[0].body["priority"] == engine_priority(0, 3.0, lower_first=True)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--upstream", "127.0.0.1:8000"), "--upstream: Value error, must be an address"),
        (("--upstream", "http://127.0.0.1:8000", "--repository", "/nowhere"), "/nowhere"),
        (("--upstream", "http://127.0.0.1:8000", "--ranker-timeout-ms", "0"), "--ranker-timeout-ms"),
    ],
)
def test_it_says_what_is_wrong_and_ends(options: tuple[str, ...], problem: str) -> None:
    with proxy(*options) as (process, _):
        assert process.wait(30) == 2
        _, printed = process.communicate()
    assert problem in printed
    assert "Traceback" not in printed
