"""A server takes its settings from a file, the environment and options, and says in its log what they are."""

import json
from pathlib import Path

import pytest
from support.messages import inference
from support.server_process import Connection, StartServer

from rankserve.v1 import scheduler_pb2 as pb


async def test_settings_from_all_three_sources_hold_and_are_logged(
    start_server: StartServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "rankserve.toml"
    config.write_text('policy = "sjf"\nmax_sequences = 3\nmax_batched_tokens = 512\n', encoding="utf-8")
    monkeypatch.setenv("RANKSERVE_CONFIG", str(config))
    monkeypatch.setenv("RANKSERVE_MAX_SEQUENCES", "5")
    monkeypatch.setenv("RANKSERVE_POLICY", "mlfq")
    server = start_server("--policy", "fcfs")
    async with Connection(server.address) as connection:
        stats = await connection.stats()
    assert (stats.policy, stats.max_sequences, stats.max_batched_tokens) == ("fcfs", 5, 512)
    assert server.stop() == 0
    lines = [json.loads(line) for line in server.stderr.splitlines()]
    [listening] = [line for line in lines if line["event"] == "listening"]
    settings = listening["settings"]
    assert settings.pop("repository")
    assert settings == {"policy": "fcfs", "port": 0, "max_sequences": 5, "max_batched_tokens": 512}
    assert {"level", "logger", "timestamp"} <= listening.keys()


async def test_every_line_of_a_server_is_json_at_any_level(start_server: StartServer) -> None:
    server = start_server("--replay", "--log-level", "debug", "--request-log")
    async with Connection(server.address) as connection:
        call = connection.scheduler.Generate(pb.GenerateRequest(request=inference("r-1")))
        async for _ in call:
            pass
    assert server.stop() == 0
    assert all(isinstance(json.loads(line), dict) for line in server.stderr.splitlines())
