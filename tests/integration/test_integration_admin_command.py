"""`rankserve admin` against a real server."""

import json
from pathlib import Path

import pytest
from support.messages import inference
from support.server_process import Connection, ServerProcess, StartServer
from support.submit_stream import SubmitStream
from typer.testing import CliRunner, Result

from rankserve.cli.main import app


def admin(server: ServerProcess, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["admin", *arguments, "--target", server.address])


async def test_an_operator_pauses_reorders_looks_and_resumes(start_server: StartServer) -> None:
    server = start_server("--replay", "--max-sequences", "1", "--time-scale", "10")
    assert admin(server, "pause").stdout.startswith("paused")
    async with Connection(server.address) as connection, SubmitStream(connection.scheduler) as stream:
        await stream.send(inference("long", words=9), inference("short", words=2, tenant="team"))
        await stream.until_all("queued", ["long", "short"])
        counters = json.loads(admin(server, "stats", "--json").stdout)
        assert (counters["state"], counters["waiting"], counters["running"]) == ("paused", 2, 0)
        assert "state" in admin(server, "stats").stdout
        changed = json.loads(admin(server, "policy", "fcfs", "--json").stdout)
        assert changed == {"policy": "fcfs", "previous": "bounded_ranking", "reordered": 2}
        listed = admin(server, "requests", "--state", "waiting", "--tenant", "team", "--json").stdout
        assert [json.loads(line)["request_id"] for line in listed.splitlines()] == ["short"]
        assert "short (team)" in admin(server, "requests").stdout
        assert admin(server, "resume").stdout == "serving\n"
        history = await stream.finish()
        assert history.order_of("finished") == ["long", "short"]
        assert admin(server, "drain").stdout.startswith("draining")
        assert json.loads(admin(server, "stats", "--json").stdout)["state"] == "draining"
        assert admin(server, "resume").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["policy", "no-such-policy"], "no-such-policy"),
        (["requests", "--state", "lost"], "lost"),
        (["stats", "--tls-server-name", "a"], "--tls-ca"),
    ],
)
def test_what_is_wrong_is_said(slow_server: ServerProcess, arguments: list[str], says: str) -> None:
    result = admin(slow_server, *arguments)
    assert result.exit_code != 0
    assert says in result.output


def test_the_token_of_the_file_is_sent(start_server: StartServer, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("a-token-that-is-long-enough\n", encoding="utf-8")
    token.chmod(0o600)
    server = start_server("--token-file", str(token))
    refused = admin(server, "stats")
    assert refused.exit_code == 1
    assert "token" in refused.output
    assert admin(server, "stats", "--token-file", str(token)).exit_code == 0
