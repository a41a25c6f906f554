"""Ranker versions change under load: nobody is lost, no two versions meet, a bad one changes nothing."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from grpc import StatusCode
from support.damage import DAMAGES, record_other_scores
from support.messages import inference, reason, rich_status, violated_fields
from support.server_process import Connection, ServerProcess, StartServer
from support.slots import occupied
from support.submit_stream import SubmitStream
from support.toy_ranker import publish, publish_three

from rankserve.records.ranker_version import Coverage
from rankserve.v1 import ranker_pb2 as pb

# Of the versions in `own_repository`.
OFFSETS = {"toy/1": 0.0, "toy/2": 100.0}
NEUTRAL = -5.0
TOY = ("--ranker", "toy", "--ranker-version", "1")


async def activate(connection: Connection, name: str, version: int) -> pb.ActivateRankerVersionResponse:
    request = pb.ActivateRankerVersionRequest(name=name, version=version)
    return await connection.ranker.ActivateRankerVersion(request)


async def listed(connection: Connection) -> dict[str, pb.RankerVersion]:
    response = await connection.ranker.ListRankerVersions(pb.ListRankerVersionsRequest())
    return {f"{version.name}/{version.version}": version for version in response.versions}


async def scores(connection: Connection, *prompts: str) -> tuple[str, list[float]]:
    response = await connection.ranker.Score(pb.ScoreRequest(prompts=prompts))
    return response.ranker_version, [score.score for score in response.scores]


async def test_a_swap_rescores_hundreds_of_waiting_requests(
    start_server: StartServer, own_repository: Path
) -> None:
    server = start_server(
        "--replay", "--max-sequences", "2", "--policy", "ranking", *TOY, repository=own_repository
    )
    words = {f"r{n}": 1 + n % 40 for n in range(400)}
    early, late = list(words)[:300], list(words)[300:]
    async with Connection(server.address) as connection, SubmitStream(connection.scheduler) as stream:
        async with occupied(connection):
            await stream.send(*(inference(i, words=words[i], output=1) for i in early))
            await stream.until_all("queued", early)
            response = await activate(connection, "toy", 2)
            assert response.rescored == 300
            assert (response.active.name, response.active.version, response.active.active) == ("toy", 2, True)
            await stream.send(*(inference(i, words=words[i], output=1) for i in late))
            await stream.until_all("queued", late)
        history = await stream.finish()
        stats = await connection.stats()
    for request_id in words:
        version = "toy/1" if request_id in early else "toy/2"
        assert history.queued(request_id).ranker_version == version
        assert history.queued(request_id).score == OFFSETS[version] - 1 - words[request_id]
        # Served by the scores of the new version, whichever it was queued with.
        assert history.result(request_id).ranker_version == "toy/2"
        assert history.result(request_id).score == OFFSETS["toy/2"] - 1 - words[request_id]
    started = [words[request_id] for request_id in history.order_of("tokens")]
    assert started == sorted(started)
    assert stats.ranker_version == "toy/2"
    assert stats.neutral_scores_total == 0


@pytest.fixture(scope="module")
def shared_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("versions") / "models"
    publish_three(path)
    return path


@pytest.fixture(scope="module")
def versions_server(start_module_server: StartServer, shared_repository: Path) -> ServerProcess:
    # Versions without calibration come and go here; the default policy would refuse them.
    options = ("--replay", "--max-sequences", "4", "--policy", "ranking", *TOY)
    return start_module_server(*options, repository=shared_repository)


@pytest.fixture
async def connection(versions_server: ServerProcess) -> AsyncIterator[Connection]:
    """To a server that others have used; toy/1 is active."""
    async with Connection(versions_server.address) as connection:
        await activate(connection, "toy", 1)
        yield connection


async def test_a_version_that_cannot_be_used_leaves_the_old_one_active(
    connection: Connection, shared_repository: Path
) -> None:
    expected = await scores(connection, "one", "one two three")
    pointer = (shared_repository / "active.json").read_text()
    assert expected == ("toy/1", [-2.0, -4.0])
    for number, (damage, says) in enumerate(DAMAGES.items(), start=1):
        folder = publish(shared_repository, "damaged", number, max_length=64)
        damage(folder)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await activate(connection, "damaged", number)
        assert refused.value.code() is StatusCode.FAILED_PRECONDITION, damage.__name__
        assert reason(rich_status(refused.value)) == "RANKER_VERSION_UNUSABLE"
        assert says in (refused.value.details() or "")
        assert await scores(connection, "one", "one two three") == expected
    versions = await listed(connection)
    assert [name for name, version in versions.items() if version.active] == ["toy/1"]
    assert (shared_repository / "active.json").read_text() == pointer


async def test_what_the_old_version_scores_during_the_swap_is_scored_again(connection: Connection) -> None:
    async with SubmitStream(connection.scheduler) as stream:
        async with occupied(connection):
            await stream.send(inference("in-flight", prompt="heliotrope slow"))
            await connection.until_stats(lambda stats: stats.scoring == 1)
            await activate(connection, "toy", 2)
            await stream.until_all("queued", ["in-flight"])
        history = await stream.finish()
    assert history.queued("in-flight").ranker_version == "toy/2"
    assert history.queued("in-flight").score == OFFSETS["toy/2"] - 3


async def test_versions_and_names_that_are_not_there(connection: Connection) -> None:
    for name, version in (("toy", 9), ("nope", 1), ("../models/toy", 1), ("toy/1", 0), (".", 0)):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await activate(connection, name, version)
        assert refused.value.code() is StatusCode.FAILED_PRECONDITION
        assert "plain/1, toy/1, toy/2" in (refused.value.details() or "")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await activate(connection, "", 1)
    assert refused.value.code() is StatusCode.INVALID_ARGUMENT
    assert violated_fields(rich_status(refused.value)) == ["name"]


async def test_versions_are_listed_with_their_problem(
    connection: Connection, shared_repository: Path
) -> None:
    publish(shared_repository, "many", 2, max_length=64)
    publish(
        shared_repository,
        "many",
        10,
        max_length=64,
        created_at="2026",
        metrics={"kendall_tau": 0.5},
        coverage=Coverage(9, 9, 0, 0.5, 0.875, (0.5,), (0.875,)),
    )
    (publish(shared_repository, "many", 11, max_length=64) / "model.onnx").unlink()
    versions = {name: v for name, v in (await listed(connection)).items() if v.name != "damaged"}
    assert list(versions) == ["many/2", "many/10", "many/11", "plain/1", "toy/1", "toy/2"]
    assert "model.onnx is unreadable" in versions["many/11"].problem
    assert [name for name, version in versions.items() if version.problem] == ["many/11"]
    assert [name for name, version in versions.items() if version.active] == ["toy/1"]
    newest = versions["many/10"]
    assert (newest.precision, newest.base_model, newest.created_at) == ("fp32", "toy", "2026")
    assert newest.kendall_tau == 0.5
    assert (newest.coverage_p50, newest.coverage_p90) == (0.5, 0.875)
    assert not versions["many/2"].HasField("kendall_tau")
    assert not versions["many/2"].HasField("coverage_p90")
    # Of what is loaded it says what runs it, and that nothing else was asked for.
    assert {name: list(v.providers) for name, v in versions.items() if v.providers} == {
        "toy/1": ["CPUExecutionProvider"]
    }
    assert not any(version.missing_providers for version in versions.values())
    # 0 asks for the newest that can be used.
    assert (await activate(connection, "many", 0)).active.version == 10


async def test_a_repository_that_went_away_is_an_error_and_no_more(
    connection: Connection, shared_repository: Path
) -> None:
    moved = shared_repository.rename(shared_repository.with_name("moved"))
    try:
        assert await listed(connection) == {}
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await activate(connection, "toy", 2)
        assert refused.value.code() is StatusCode.FAILED_PRECONDITION
        assert await scores(connection, "one") == ("toy/1", [-2.0])
    finally:
        moved.rename(shared_repository)


async def test_scores_come_with_expected_lengths_where_the_version_has_them(connection: Connection) -> None:
    response = await connection.ranker.Score(pb.ScoreRequest(prompts=["one", "one two three four"]))
    assert [score.score for score in response.scores] == [-2.0, -5.0]
    assert [score.expected_tokens_p50 for score in response.scores] == [120.0, 150.0]
    assert [score.expected_tokens_p90 for score in response.scores] == [200.0, 275.0]
    await activate(connection, "plain", 1)
    response = await connection.ranker.Score(pb.ScoreRequest(prompts=["one"]))
    assert response.ranker_version == "plain/1"
    assert not response.scores[0].HasField("expected_tokens_p50")


async def test_an_activated_version_is_active_after_a_restart(
    start_server: StartServer, own_repository: Path
) -> None:
    pointer = own_repository / "active.json"
    first = start_server(*TOY, repository=own_repository)
    assert first.listening["ranker_version"] == "toy/1"
    # A version chosen for one run is nobody's choice for the next.
    assert not pointer.exists()
    async with Connection(first.address) as connection:
        await activate(connection, "toy", 2)
    assert json.loads(pointer.read_text()) == {"name": "toy", "version": 2}
    await asyncio.to_thread(first.stop)
    second = start_server(repository=own_repository)
    assert second.listening["ranker_version"] == "toy/2"


@pytest.mark.parametrize("policy", ["aged_ranking", "bounded_ranking"])
async def test_a_policy_of_lengths_refuses_a_version_without_calibration(
    policy: str, start_server: StartServer, own_repository: Path
) -> None:
    server = start_server("--policy", policy, *TOY, repository=own_repository)
    async with Connection(server.address) as connection:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await activate(connection, "plain", 1)
        assert refused.value.code() is StatusCode.FAILED_PRECONDITION
        assert "no calibration" in (refused.value.details() or "")
        assert await scores(connection, "one") == ("toy/1", [-2.0])
        assert (await activate(connection, "toy", 2)).active.version == 2


async def test_a_ranker_that_fails_or_is_late_costs_the_order_and_not_the_request(
    start_server: StartServer,
) -> None:
    server = start_server("--replay", "--max-sequences", "4", "--ranker-timeout-ms", "300")
    prompts = {
        "not-a-number": "heliotrope poison",
        "crashes": "heliotrope crash",
        "late": "heliotrope slow",
        "behind-the-late": "heliotrope one",
    }
    async with Connection(server.address) as connection, SubmitStream(connection.scheduler) as stream:
        async with occupied(connection):
            for request_id, prompt in prompts.items():
                await stream.send(inference(request_id, prompt=prompt))
                await stream.until_all("accepted", [request_id])
            await stream.until_all("queued", list(prompts))
        history = await stream.finish()
        stats = await connection.stats()
    for request_id in prompts:
        assert history.result(request_id).output_tokens == 3
        assert history.result(request_id).ranker_version == ""
        assert history.queued(request_id).score == NEUTRAL
    assert stats.neutral_scores_total == 4
    assert "prompt_scored_neutral" in server.stderr


async def test_a_server_starts_with_other_scores_than_recorded_says_so_and_still_refuses_to_swap_to_them(
    start_server: StartServer, own_repository: Path
) -> None:
    """After an upgrade of ONNX Runtime, or on another CPU, a refusal would be an outage."""
    for version in ("1", "2"):
        record_other_scores(own_repository / "toy" / version)
    server = start_server("--replay", *TOY, repository=own_repository)
    async with Connection(server.address) as connection:
        assert await scores(connection, "one two") == ("toy/1", [-3.0])
        versions = await listed(connection)
        assert versions["toy/1"].active
        assert "differ from those recorded at export by 15" in versions["toy/1"].problem
        assert versions["toy/2"].problem == ""
        with pytest.raises(grpc.aio.AioRpcError, match="differ from those recorded at export"):
            await activate(connection, "toy", 2)
        assert (await scores(connection, "one two"))[0] == "toy/1"
    assert "ranker_scores_differ_from_export" in server.stderr
