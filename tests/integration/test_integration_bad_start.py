"""A server that cannot start as it is told says why in one line and ends with status 2."""

import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.damage import DAMAGES, flip_a_byte, leave_no_manifest
from support.server_process import StartServer, environment, serve_command
from support.tls import Authority
from support.toy_ranker import publish


def assert_refuses_to_start(*options: str, says: tuple[str, ...]) -> None:
    result = subprocess.run(
        serve_command(*options), capture_output=True, text=True, env=environment(), timeout=60, check=False
    )
    assert result.returncode == 2, result
    assert result.stdout == ""
    # gRPC's C core has its own say on a port it cannot have, in its own format.
    lines = [line for line in result.stderr.splitlines() if "add_port.cc" not in line]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("rankserve serve: ")
    for part in says:
        assert part in lines[0]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--policy", "nope"], ("'nope'", "aged_ranking, ", "srtf")),
        (["--preemption", "always"], ("--preemption", "'off', 'recompute' or 'swap'")),
        (["--preemption-margin", "-1"], ("--preemption-margin", "greater than or equal to 0")),
        (["--kv-reservation", "all"], ("--kv-reservation", "'none', 'predicted' or 'max'")),
        (["--reflection", "some"], ("--reflection", "'admin', 'all' or 'off'")),
        (["--max-metadata-bytes", "10"], ("--max-metadata-bytes", "1024")),
        (["--profile", "nope"], ("'nope'", "a100-llama3-8b", "h100-llama3-70b-tp4")),
        (["--engine", "nope"], ("'nope'", "there are: ", "simulated")),
        (["--time-scale", "0"], ("--time-scale", "greater than 0")),
        (["--max-batched-tokens", "8"], ("max_sequences (256)", "max_batched_tokens (8)")),
        (["--ranker", "nope"], ("'nope'", "there are toy/1")),
        (["--ranker", "toy", "--ranker-version", "9"], ("toy/9", "there are toy/1")),
        (["--ranker-provider", "NopeExecutionProvider"], ("NopeExecutionProvider", "CPUExecutionProvider")),
        (["--host", "0.0.0.0"], ("0.0.0.0", "--token-file", "--allow-unauthenticated")),
        (
            ["--http-port", "0", "--http-host", "0.0.0.0"],
            ("0.0.0.0", "--token-file", "--allow-unauthenticated"),
        ),
        (["--token-file", "no-such-file"], ("no-such-file",)),
        (["--port", "abc"], ("--port", "'abc'", "valid integer")),
        (["--config", "no-such-file"], ("no-such-file",)),
    ],
    ids=lambda value: value[0].lstrip("-") if isinstance(value, list) else "",
)
def test_options_that_cannot_be(repository: Path, options: list[str], says: tuple[str, ...]) -> None:
    assert_refuses_to_start("--repository", str(repository), *options, says=says)


def test_a_setting_that_is_not_known(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "rankserve.toml"
    config.write_text("max_waitin = 5\n", encoding="utf-8")
    options = ("--repository", str(repository), "--config", str(config))
    assert_refuses_to_start(*options, says=(str(config), "max_waitin:", "closest is max_waiting"))
    monkeypatch.setenv("RANKSERVE_POLICYS", "fcfs")
    assert_refuses_to_start(*options[:2], says=("RANKSERVE_POLICYS:", "closest is RANKSERVE_POLICY"))


@pytest.mark.parametrize("damage", [flip_a_byte, leave_no_manifest])
def test_a_damaged_ranker_version(own_repository: Path, damage: Callable[[Path], None]) -> None:
    damage(own_repository / "toy" / "2")
    options = ("--ranker", "toy", "--ranker-version", "2")
    assert_refuses_to_start("--repository", str(own_repository), *options, says=("toy/2", DAMAGES[damage]))


def test_a_repository_without_versions(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    assert_refuses_to_start("--repository", str(missing), says=(str(missing), "rankserve export"))


def test_a_repository_with_two_rankers_and_no_choice(own_repository: Path) -> None:
    says = ("plain/1, toy/1, toy/2", "name one of them")
    assert_refuses_to_start("--repository", str(own_repository), says=says)


@pytest.mark.parametrize(
    ("options", "who"),
    [
        (["--policy", "aged_ranking"], "policy 'aged_ranking'"),
        (["--policy", "ranking", "--preemption", "swap"], "preemption under policy 'ranking'"),
        (["--policy", "ranking", "--kv-reservation", "predicted"], "reservation 'predicted'"),
    ],
)
def test_what_needs_lengths_with_a_version_that_predicts_none(
    own_repository: Path, options: list[str], who: str
) -> None:
    says = (who, "plain/1", "no calibration", "'ranking'")
    assert_refuses_to_start("--repository", str(own_repository), "--ranker", "plain", *options, says=says)


def test_a_token_file_that_is_wrong_without_a_word_of_it(repository: Path, tmp_path: Path) -> None:
    token_file = tmp_path / "tokens.toml"
    token_file.write_text('[[token]]\nname = "a"\ntoken = "hunter2-hunter2-hunter2"\nrole = ["submit"]')
    options = ("--repository", str(repository), "--token-file", str(token_file))
    assert_refuses_to_start(*options, says=("[[token]] 1", "roles"))


def test_a_token_too_short_to_be_a_secret(repository: Path, tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    token_file.write_text("hunter2\n")
    options = ("--repository", str(repository), "--token-file", str(token_file))
    assert_refuses_to_start(*options, says=("at least 16 characters",))


def test_tls_options_that_do_not_fit_each_other(repository: Path, tmp_path: Path) -> None:
    authority = Authority()
    certificate, key = (str(path) for path in authority.issue(tmp_path))
    ca = str(authority.write_ca(tmp_path))
    other = str(Authority().issue(tmp_path / "other")[1])
    for options, says in (
        (["--tls-certificate", certificate], "both --tls-certificate and --tls-key"),
        (["--tls-key", key], "both --tls-certificate and --tls-key"),
        (["--tls-client-ca", ca], "--tls-client-ca needs"),
        (["--tls-certificate", certificate, "--tls-key", other], "belongs to another certificate"),
        (["--tls-certificate", certificate, "--tls-key", f"{key}x"], "No such file"),
        (["--host", "0.0.0.0", "--tls-certificate", certificate, "--tls-key", key], "--token-file FILE"),
    ):
        assert_refuses_to_start("--repository", str(repository), *options, says=(says,))


def test_a_port_in_use(repository: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert_refuses_to_start("--repository", str(repository), "--port", port, says=(port, "in use"))


def test_a_damaged_newest_version_gives_way_to_the_one_before(
    start_server: StartServer, tmp_path: Path
) -> None:
    repository = tmp_path / "models"
    publish(repository, "toy", 1)
    (publish(repository, "toy", 2) / "model.onnx").unlink()
    server = start_server(repository=repository)
    assert server.listening["ranker_version"] == "toy/1"
    assert "toy/2" in server.stderr
    assert "model.onnx is unreadable" in server.stderr
