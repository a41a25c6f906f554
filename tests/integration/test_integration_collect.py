"""`rankserve collect` as a process against an endpoint on real sockets: kills, Ctrl-C, faults, refusals."""

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
from support.openai_endpoint import Asked, FakeEndpoint, Reply
from support.server_process import COMMAND

from rankserve.records.prompts import read_prompts

pytest.importorskip("httpx2", reason="needs the extra collect: pip install 'rankserve[collect]'")

from rankserve.trainer.collection.sampling import sample_seed

PROMPTS, SAMPLES, SEED = 100, 4, 11
MARKER = "zebra-marker"
KEY = "sk-do-not-tell"
_WAIT_S = 60


class Collect:
    """One `rankserve collect`; ended here by its pid if it has not ended by itself."""

    def __init__(self, folder: Path, url: str, *options: str, **environment: str) -> None:
        self._stderr = folder / f"stderr-{monotonic()}.txt"
        command = [
            *(str(COMMAND), "collect", str(folder / "prompts.txt"), "--url", url, "--model", "fake-7b"),
            *("--output", str(folder / "out.jsonl"), "--samples", str(SAMPLES), "--seed", str(SEED)),
            *("--max-tokens", "300", "--temperature", "0.7", "--json", *options),
        ]
        with self._stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env={**os.environ, "NO_PROXY": "127.0.0.1", **environment},
            )

    def end(self) -> int:
        try:
            self.stdout, _ = self.process.communicate(timeout=_WAIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.stdout, _ = self.process.communicate()
            raise
        return self.process.returncode

    @property
    def stderr(self) -> str:
        return self._stderr.read_text(encoding="utf-8")

    def figures(self) -> dict[str, Any]:
        figures: dict[str, Any] = json.loads(self.stdout)
        return figures


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = (f"{MARKER} number {i}: say something about it\n" for i in range(PROMPTS))
    (tmp_path / "prompts.txt").write_text("".join(lines))
    return tmp_path


@pytest.fixture
def fake() -> Iterator[FakeEndpoint]:
    with FakeEndpoint() as endpoint:
        yield endpoint


def until_asked(endpoint: FakeEndpoint, count: int) -> None:
    deadline_s = monotonic() + _WAIT_S
    while len(endpoint.asked) < count:
        assert monotonic() < deadline_s
        sleep(0.002)


def log_of(folder: Path) -> list[dict[str, Any]]:
    """The whole lines of the log."""
    lines = (folder / "out.jsonl.samples").read_bytes().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


def recorded(folder: Path, prompts: Mapping[str, str]) -> set[tuple[str, int | None]]:
    """Samples that the log holds, as the endpoint sees them: prompt and seed."""
    return {
        (prompts[line["id"]], sample_seed(SEED, line["id"], line["sample"]))
        for line in log_of(folder)
        if "output_tokens" in line
    }


def test_kill_9_loses_and_repeats_nothing(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    calm = tmp_path_factory.mktemp("calm")
    (calm / "prompts.txt").write_text((folder / "prompts.txt").read_text())
    with FakeEndpoint() as endpoint:
        undisturbed = Collect(calm, endpoint.url)
        assert undisturbed.end() == 0, undisturbed.stderr
        assert f"Z asking starts, {PROMPTS * SAMPLES} samples\n" in undisturbed.stderr
        assert f"Z asking: {PROMPTS * SAMPLES} samples in " in undisturbed.stderr
    prompts = {record.id: record.prompt for record in read_prompts(calm / "out.jsonl")}

    generator = random.Random(4)
    kills, again = 0, 0
    with FakeEndpoint(delay_s=0.02) as endpoint:
        done: set[tuple[str, int | None]] = set()
        while len(done) < PROMPTS * SAMPLES * 0.8:
            seen = len(endpoint.asked)
            killed = Collect(folder, endpoint.url, "--concurrency", "8")
            until_asked(endpoint, seen + generator.randint(8, 90))
            sleep(generator.uniform(0.0, 0.03))
            killed.process.send_signal(signal.SIGKILL)
            assert killed.end() == -signal.SIGKILL
            assert not done & {asked.sample for asked in endpoint.asked[seen:]}, "asked what was recorded"
            before, done = done, recorded(folder, prompts)
            assert before <= done, "lost what was recorded"
            assert len(done) > len(before)
            again += resent(killed.stderr)
            kills += 1
        seen = len(endpoint.asked)
        last = Collect(folder, endpoint.url, "--concurrency", "8")
        assert last.end() == 0, last.stderr
        assert not done & {asked.sample for asked in endpoint.asked[seen:]}
        again += resent(last.stderr)
        repeats = len(endpoint.asked) - PROMPTS * SAMPLES

    assert kills >= 3
    assert (folder / "out.jsonl").read_bytes() == (calm / "out.jsonl").read_bytes()
    assert repeats <= again <= 8 * kills, "more were asked again than were on their way"
    assert last.figures()["run"]["asked_again"] == resent(last.stderr)
    assert {len(record.output_lengths) for record in read_prompts(folder / "out.jsonl")} == {SAMPLES}


def resent(stderr: str) -> int:
    """What a run said it asks again."""
    (count,) = [line.split()[0] for line in stderr.splitlines() if "asked again" in line] or ["0"]
    return int(count)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_writes_what_it_has_and_goes_on_later(
    folder: Path, fake: FakeEndpoint, number: signal.Signals
) -> None:
    fake.delay_s = 0.02
    # What a shell starts in the background ignores Ctrl-C, and so does all that it starts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    run = Collect(folder, fake.url, "--concurrency", "4")
    signal.signal(signal.SIGINT, before)
    until_asked(fake, 60)
    run.process.send_signal(number)
    assert run.end() == 130, run.stderr
    assert "Traceback" not in run.stderr
    assert "run the same command again" in run.stderr
    figures = run.figures()
    assert not figures["complete"]
    assert figures["run"]["stopped"] == "interrupted"
    partial = list(read_prompts(folder / "out.jsonl"))
    assert sum(len(record.output_lengths) for record in partial) == figures["samples"] > 0

    fake.delay_s = 0.0
    rest = Collect(folder, fake.url)
    assert rest.end() == 0, rest.stderr
    assert rest.figures()["samples"] == PROMPTS * SAMPLES
    assert rest.figures()["run"]["answered"] == PROMPTS * SAMPLES - figures["samples"]


def test_after_a_kill_the_file_can_be_written_without_asking(folder: Path, fake: FakeEndpoint) -> None:
    fake.delay_s = 0.02
    run = Collect(folder, fake.url)
    until_asked(fake, 60)
    run.process.kill()
    run.end()
    assert not (folder / "out.jsonl").exists()
    sleep(0.1)
    asked = len(fake.asked)
    part = Collect(folder, fake.url, "--partial")
    assert part.end() == 1
    assert len(fake.asked) == asked
    written = sum(len(record.output_lengths) for record in read_prompts(folder / "out.jsonl"))
    assert written == part.figures()["samples"] > 0


def fault(kind: int, asked: Asked) -> Reply:
    """One of four; the message of the second holds what it was sent."""
    return (
        Reply.error(429, "slow down", Retry_After="0"),
        Reply.error(500, f"oops {KEY} at {asked.prompt}"),
        Reply(body=b'{"choices": ['),
        Reply(body=b"{}" * 30, behaviour="cut"),
    )[kind]


def test_a_flaky_endpoint_is_tried_again_until_all_is_there(folder: Path, fake: FakeEndpoint) -> None:
    """Each tenth sample fails once, in one of four ways; two prompts are refused; one request hangs."""

    def reply(asked: Asked) -> Reply | None:
        number = int(asked.prompt.split()[2].rstrip(":"))
        if number in (20, 70):
            return Reply.error(400, f"maximum context length is 9 tokens, got {asked.prompt}")
        if asked.times == 1 and number % 10 == 3:
            return Reply(behaviour="hang") if number == 33 else fault(number // 10 % 4, asked)
        return None

    fake.reply = reply
    run = Collect(folder, fake.url, "-c", "32", "--timeout-s", "2", "--api-key-env", "MY_KEY", MY_KEY=KEY)
    assert run.end() == 0, run.stderr
    figures = run.figures()
    assert figures["complete"]
    assert (figures["complete_prompts"], figures["refused_prompts"]) == (PROMPTS - 2, 2)
    assert figures["run"]["retries"] == 10 * SAMPLES
    assert figures["censored_samples"] > 0
    assert "refused: prompt" in run.stderr
    assert fake.asked[0].headers["authorization"] == f"Bearer {KEY}"

    log = (folder / "out.jsonl.samples").read_text()
    for text in (run.stderr, run.stdout, log):
        assert MARKER not in text, "a prompt was logged"
        assert KEY not in text, "the key was logged"
    assert log.count("maximum context length") == 2

    fake.reply = lambda asked: None
    seen = len(fake.asked)
    assert Collect(folder, fake.url).end() == 0
    assert len(fake.asked) == seen, "a refused prompt was asked again"
    retried = Collect(folder, fake.url, "--retry-failed")
    assert retried.end() == 0
    assert retried.figures()["complete_prompts"] == PROMPTS
    assert len(fake.asked) == seen + 2 * SAMPLES


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (Reply.error(401, f"bad key {KEY}"), "--api-key-env"),
        (Reply.error(404, "the model does not exist"), "check --model"),
        (Reply(body=b'{"choices": [{"finish_reason": "stop"}]}'), "usage.completion_tokens"),
    ],
)
def test_what_every_request_would_meet_stops_the_run_at_once(
    folder: Path, fake: FakeEndpoint, reply: Reply, told: str
) -> None:
    fake.reply = lambda asked: reply
    run = Collect(folder, fake.url, "-c", "4", "--api-key-env", "MY_KEY", MY_KEY=KEY)
    assert run.end() == 1
    assert told in run.stderr
    assert KEY not in run.stderr
    assert "Traceback" not in run.stderr
    assert len(fake.asked) <= 8
    assert not (folder / "out.jsonl").exists()


def test_a_dry_run_asks_only_its_pilot_and_keeps_what_it_brought(folder: Path, fake: FakeEndpoint) -> None:
    blind = Collect(folder, fake.url, "--dry-run")
    assert blind.end() == 0
    assert blind.figures()["output_tokens"] == PROMPTS * SAMPLES * 300
    assert fake.asked == []
    assert [path.name for path in folder.glob("out.*")] == []

    options = ("--dry-run", "--pilot", "20", "--price-output", "10")
    for _ in range(2):
        pilot = Collect(folder, fake.url, *options)
        assert pilot.end() == 0, pilot.stderr
        figures = pilot.figures()
        assert (figures["requests"], figures["measured_prompts"]) == (PROMPTS * SAMPLES - 20, 20)
        assert len(fake.asked) == 20, "a pilot that was run before was run again"
    assert figures["cost"] == pytest.approx(figures["output_tokens"] * 10 / 1e6)

    run = Collect(folder, fake.url)
    assert run.end() == 0
    truth = run.figures()["output_tokens"]
    assert len(fake.asked) == PROMPTS * SAMPLES
    measured = sum(line["output_tokens"] for line in log_of(folder)[:41] if "output_tokens" in line)
    assert figures["output_tokens_low"] <= truth - measured <= figures["output_tokens_high"]


def test_what_is_asked_for_wrongly_says_what_to_do(folder: Path, fake: FakeEndpoint) -> None:
    assert Collect(folder, fake.url, "--limit", "3").end() == 0
    for options, told in (
        (("--temperature", "0.9"), "temperature 0.7"),
        (("--url", "http://me:secret@127.0.0.1/v1"), "--url must"),
        (("--api-key-env", "NOT_SET_ANYWHERE"), "NOT_SET_ANYWHERE"),
        (("--extra", "[1]"), "--extra must"),
        (("--extra", '{"n": 4}'), "one answer a request"),
        (("--output", str(folder / "out.csv")), "--output must end"),
    ):
        run = Collect(folder, fake.url, *options)
        assert run.end() == 1, options
        assert told in run.stderr
        assert "Traceback" not in run.stderr
        assert run.stdout == ""


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--pilot", "5"), "need --dry-run"),
        (("--price-output", "1"), "need --dry-run"),
        (("--subset", "en"), "--subset is of a --dataset"),
        (("--partial", "--dry-run"), "leave out --dry-run"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(
    folder: Path, fake: FakeEndpoint, options: tuple[str, ...], told: str
) -> None:
    run = Collect(folder, fake.url, *options, COLUMNS="200")
    assert run.end() == 2
    assert told in run.stderr
    assert fake.asked == []


def test_without_the_extra_the_command_that_installs_it_is_named(folder: Path) -> None:
    options = ["collect", "prompts.txt", "--url", "http://h/v1", "--model", "m", "--output", "o.jsonl"]
    program = (
        f"import sys\nsys.modules['httpx2'] = None\nfrom rankserve.cli.main import app\napp({options!r})"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=folder)
    assert run.returncode == 1
    assert "pip install 'rankserve[collect]'" in run.stderr
    assert "Traceback" not in run.stderr


def test_collecting_loads_no_torch() -> None:
    program = (
        "import sys\nimport rankserve.trainer.collection.job\nimport rankserve.trainer.collection.estimate\n"
        "print(sorted({'torch', 'transformers', 'numpy', 'pyarrow', 'datasets'} & sys.modules.keys()))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
