"""Metrics, probes, dashboard, alerts and live data of a real server process."""

import asyncio
import base64
import http.client
import json
import signal
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families
from scipy.stats import kendalltau
from support.messages import PROMPT_MARKER, inference
from support.promql import is_balanced, listed_labels, matched_labels, metric_names
from support.server_process import Connection, ServerProcess, StartServer
from support.slots import occupied
from support.submit_stream import History, SubmitStream
from support.tls import Authority

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "a-token-of-sufficient-length"


class Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.text = response.read().decode()


def get(server: ServerProcess, path: str, **headers: str) -> Answer:
    host, _, port = server.listening["operations_address"].rpartition(":")
    connection = http.client.HTTPConnection("127.0.0.1" if host == "0.0.0.0" else host, int(port), timeout=30)
    try:
        connection.request("GET", path, headers=headers)
        return Answer(connection.getresponse())
    finally:
        connection.close()


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(text: str, name: str, **labels: str) -> float:
    return samples(text)[f"rankserve_{name}", tuple(sorted(labels.items()))]


async def serve_some(address: str) -> History:
    """60 requests that finish, long prompts with long answers mostly; one that is refused, one cancelled."""
    async with Connection(address) as connection:
        async with SubmitStream(connection.scheduler) as stream:
            await stream.send(
                *(inference(f"r{n}", words=2 + n % 20, output=5 + n % 20 + n * 7 % 13) for n in range(60))
            )
            await stream.send(inference("too-long", max_tokens=10**6))
            history = await stream.finish()
        async with SubmitStream(connection.scheduler) as stream:
            await stream.send(inference("cancelled", output=5000))
            await stream.until_all("tokens", ["cancelled"])
        await connection.until_idle()
    return history


@pytest.fixture(scope="module")
def server(start_module_server: StartServer) -> ServerProcess:
    # The LLM is slow enough for prompts to be scored before they are answered, on a busy machine too.
    options = ("--replay", "--gather-ms", "500", "--policy", "ranking", "--operations-port", "0")
    return start_module_server(*options)


@pytest.fixture(scope="module")
def history(server: ServerProcess) -> History:
    return asyncio.run(serve_some(server.address))


@pytest.fixture(scope="module")
def scrape(server: ServerProcess, history: History) -> str:
    return get(server, "/metrics").text


async def test_a_scrape_agrees_with_the_api(server: ServerProcess, scrape: str) -> None:
    async with Connection(server.address) as connection:
        stats = await connection.stats()
    assert value(scrape, "requests_accepted_total") == stats.accepted_total == 61
    assert value(scrape, "requests_ended_total", outcome="finished") == stats.finished_total == 60
    assert value(scrape, "requests_ended_total", outcome="cancelled") == stats.cancelled_total == 1
    assert value(scrape, "requests_refused_total", reason="INVALID_REQUEST") == stats.refused_total == 1
    assert value(scrape, "request_failure_total", reason="STREAM_LOST") == 1
    assert value(scrape, "request_success_total", finished_reason="stop") == 60
    assert value(scrape, "generation_tokens_total") == stats.output_tokens_total
    assert value(scrape, "engine_steps_total") == stats.steps_total
    assert value(scrape, "num_requests_waiting") == value(scrape, "num_requests_running") == 0
    assert value(scrape, "kv_cache_usage_perc") == 0
    assert value(scrape, "policy_info", policy="ranking") == 1
    assert value(scrape, "ranker_info", ranker_version="toy/1") == 1
    assert value(scrape, "server_state", state="serving") == 1
    for histogram in ("e2e_request_latency_seconds", "request_generation_tokens"):
        assert value(scrape, f"{histogram}_count") == 60
    for histogram in ("request_queue_time_seconds", "time_to_first_token_seconds"):
        assert value(scrape, f"{histogram}_count") == 61
    # A request may be through before it has a score.
    assert 0 < value(scrape, "score_latency_seconds_count") <= 61
    assert value(scrape, "request_generation_tokens_sum") == sum(5 + n % 20 + n * 7 % 13 for n in range(60))


async def test_tasks_are_those_of_open_streams_and_gone_with_them(server: ServerProcess) -> None:
    async def tasks() -> float:
        return value((await asyncio.to_thread(get, server, "/metrics")).text, "asyncio_tasks")

    async with Connection(server.address) as connection:
        before = await tasks()
        calls = [connection.scheduler.Submit() for _ in range(20)]
        await connection.until_stats(lambda stats: stats.open_streams == 20)
        assert await tasks() >= before + 20
        for call in calls:
            call.cancel()
        await connection.until_stats(lambda stats: stats.open_streams == 0)
        async with asyncio.timeout(30):
            while await tasks() > before:
                await asyncio.sleep(0.05)


async def test_live_tau_is_that_of_the_results_that_clients_got(
    server: ServerProcess, history: History, scrape: str
) -> None:
    results = [history.result(f"r{n}") for n in range(60)]
    results = [result for result in results if result.ranker_version]
    expected = kendalltau([-r.score for r in results], [r.output_tokens for r in results]).statistic
    assert 0.3 < expected < 1
    assert value(scrape, "ranker_kendall_tau", ranker_version="toy/1") == pytest.approx(expected)
    assert value(scrape, "ranker_kendall_tau_window_requests", ranker_version="toy/1") == len(results)
    async with Connection(server.address) as connection:
        (accuracy,) = (await connection.stats()).ranker_accuracy
    assert (accuracy.ranker_version, accuracy.requests) == ("toy/1", len(results))
    assert accuracy.kendall_tau == pytest.approx(expected)


def test_both_formats_can_be_read(server: ServerProcess, scrape: str) -> None:
    answer = get(server, "/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    open_names = {family.name for family in parse_openmetrics(answer.text)}  # type: ignore[no-untyped-call]
    assert "rankserve_num_requests_waiting" in open_names
    assert answer.text.endswith("# EOF\n")
    for family in text_string_to_metric_families(scrape):
        assert family.name.startswith(("rankserve_", "process_")), family.name
        assert family.documentation, family.name


def test_no_label_holds_what_a_client_chose(scrape: str) -> None:
    labels = {name for _, pairs in samples(scrape) for name, _ in pairs}
    assert labels <= {
        "le", "reason", "outcome", "finished_reason", "state", "policy", "ranker_version", "engine", "version"
    }  # fmt: skip


def expressions() -> Iterator[tuple[str, str]]:
    """(where, expression) of the dashboard, the recording rules and the alerts."""
    dashboard: dict[str, Any] = json.loads((ROOT / "deploy/grafana/rankserve.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for annotation in dashboard["annotations"]["list"]:
        if "expr" in annotation:
            yield annotation["name"], annotation["expr"]
    for rule in rules("recording_rules.yml") + rules("alerts.yml"):
        yield rule.get("record") or rule["alert"], rule["expr"]


def rules(name: str) -> list[dict[str, Any]]:
    document = yaml.safe_load((ROOT / "deploy/prometheus" / name).read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


def test_dashboard_and_rules_refer_to_metrics_that_exist(scrape: str) -> None:
    known: dict[str, set[str]] = {"up": set()}
    for name, pairs in samples(scrape):
        known.setdefault(name, set()).update(label for label, _ in pairs)
    # The toy version was exported with no figures.
    known["rankserve_ranker_export_kendall_tau"] = {"ranker_version"}
    # A simulated LLM has none; see test_integration_engines.py.
    known["rankserve_endpoint_serves"] = {"url", "model"}
    known |= {rule["record"]: {"ranker_version"} for rule in rules("recording_rules.yml")}
    anywhere = {"job", "instance"}
    seen = 0
    for where, expression in expressions():
        assert is_balanced(expression), f"{where}: {expression}"
        names = metric_names(expression)
        assert names, f"{where}: {expression}"
        assert names <= known.keys(), f"{where}: {names - known.keys()}"
        for name, labels in matched_labels(expression).items():
            assert labels <= known[name] | anywhere, f"{where}: {name} has no {labels - known[name]}"
        grouped = listed_labels(expression)
        assert grouped <= set().union(*(known[name] for name in names)) | anywhere, f"{where}: {grouped}"
        seen += 1
    assert seen > 60


def test_the_dashboard_is_one_that_grafana_imports() -> None:
    dashboard = json.loads((ROOT / "deploy/grafana/rankserve.json").read_text())
    assert dashboard["schemaVersion"] >= 39
    assert dashboard["uid"] == "rankserve"
    assert dashboard["id"] is None
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert place["x"] + place["w"] <= 24, panel["title"]
        assert not cells & taken, f"{panel['title']} lies on another"
        taken |= cells
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}", panel["title"]
            assert panel["description"], panel["title"]


def test_every_alert_says_what_to_do() -> None:
    for rule in rules("alerts.yml"):
        assert rule["labels"]["severity"] in {"critical", "warning"}, rule["alert"]
        assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}, rule["alert"]
        assert rule["annotations"]["runbook_url"].startswith("docs/operations.md#"), rule["alert"]


def test_no_prompt_is_shown_anywhere(server: ServerProcess, history: History) -> None:
    for path in ("/metrics", "/live", "/", "/healthz", "/readyz"):
        answer = get(server, path)
        assert answer.status == 200
        assert PROMPT_MARKER not in answer.text
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_the_queue_is_shown_in_the_order_of_scores(start_server: StartServer) -> None:
    server = start_server("--replay", "--policy", "ranking", "--max-sequences", "2", "--operations-port", "0")
    async with (
        Connection(server.address) as connection,
        occupied(connection),
        SubmitStream(connection.scheduler) as stream,
    ):
        await stream.send(*(inference(f"w{n}", words=2 + n * 7 % 40, output=5) for n in range(40)))
        await stream.until_all("queued", [f"w{n}" for n in range(40)])
        # Made at most once a second.
        while len((live := json.loads(get(server, "/live").text))["queue"]) < 30:
            await asyncio.sleep(0.2)
        scores = [row["score"] for row in live["queue"]]
        assert scores == sorted(scores, reverse=True)
        assert live["queue"][0]["id"] == "w0"
        assert len(live["batch"]) == 2


async def test_readiness_ends_with_the_signal_and_health_with_the_process(start_server: StartServer) -> None:
    server = start_server("--replay", "--operations-port", "0", "--drain-notice-s", "1")
    assert get(server, "/readyz").status == 200
    async with Connection(server.address) as connection, SubmitStream(connection.scheduler) as stream:
        await stream.send(inference("running", output=150))
        await stream.until_all("tokens", ["running"])
        server.send(signal.SIGTERM)
        while (ready := get(server, "/readyz")).status == 200:
            await asyncio.sleep(0.02)
        assert (ready.status, ready.text) == (503, "draining\n")
        assert get(server, "/healthz").status == 200
        assert value(get(server, "/metrics").text, "server_state", state="draining") == 1
        await stream.until_all("finished", ["running"])
    assert server.stop() == 0


async def test_a_page_that_is_open_does_not_hold_up_the_end(start_server: StartServer) -> None:
    server = start_server("--operations-port", "0")
    host, _, port = server.listening["operations_address"].rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /live/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await reader.readuntil(b"data: ")
    server.send(signal.SIGTERM)
    await reader.read()
    writer.close()
    assert await asyncio.to_thread(server.stop) == 0


def test_beyond_loopback_a_token_is_asked_for(start_server: StartServer, tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    token_file.write_text(TOKEN)
    options = ("--operations-port", "0", "--operations-host", "0.0.0.0", "--token-file", str(token_file))
    server = start_server(*options)
    for path in ("/", "/live", "/live/events", "/metrics", f"/live?token={TOKEN}"):
        refused = get(server, path)
        assert refused.status == 401, path
        assert refused.headers["www-authenticate"].startswith("Basic ")
        assert get(server, path, Authorization="Bearer wrong").status == 401
    basic = "Basic " + base64.b64encode(f"me:{TOKEN}".encode()).decode()
    for path in ("/", "/live", "/metrics"):
        assert get(server, path, Authorization=f"Bearer {TOKEN}").status == 200
        assert get(server, path, Authorization=basic).status == 200
    assert get(server, "/healthz").status == get(server, "/readyz").status == 200
    open_metrics = start_server(*options, "--metrics-open")
    assert get(open_metrics, "/metrics").status == 200
    assert get(open_metrics, "/live").status == 401
    server.stop()
    assert TOKEN not in server.stderr


def test_beyond_loopback_it_speaks_tls_and_asks_for_no_client_certificate(
    start_server: StartServer, tmp_path: Path
) -> None:
    authority = Authority()
    certificate, key = authority.issue(tmp_path)
    ca, token_file = authority.write_ca(tmp_path), tmp_path / "token"
    token_file.write_text(TOKEN)
    tls = ("--tls-certificate", str(certificate), "--tls-key", str(key), "--tls-client-ca", str(ca))
    outside = ("--operations-port", "0", "--operations-host", "0.0.0.0")
    server = start_server(*tls, *outside, "--token-file", str(token_file))
    port = int(server.listening["operations_address"].rpartition(":")[2])
    trusting = ssl.create_default_context(cafile=str(ca))
    for path, headers, status in (
        ("/readyz", {}, 200),
        ("/metrics", {}, 401),
        ("/metrics", {"Authorization": f"Bearer {TOKEN}"}, 200),
    ):
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=trusting)
        connection.request("GET", path, headers=headers)
        assert connection.getresponse().status == status, path
        connection.close()
    with pytest.raises(RuntimeError, match="--token-file"):
        start_server(*tls, *outside)
    assert get(start_server(*tls, "--operations-port", "0"), "/metrics").status == 200, "plain on loopback"


def test_nobody_shows_the_network_who_is_served_by_accident(start_server: StartServer) -> None:
    with pytest.raises(RuntimeError, match="--allow-unauthenticated"):
        start_server("--operations-port", "0", "--operations-host", "0.0.0.0")
