"""docs/operations.md explains every metric that a server shows, and no other."""

import re
import urllib.request
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from support.server_process import StartServer

RUNBOOK = Path(__file__).resolve().parents[2] / "docs" / "operations.md"


def test_every_metric_is_explained(start_server: StartServer) -> None:
    server = start_server("--operations-port", "0")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{server.listening['operations_address']}/metrics", timeout=30) as response:
        families = list(text_string_to_metric_families(response.read().decode()))
    shown = {family.name.removesuffix("_info") for family in families if family.name.startswith("rankserve_")}
    table = RUNBOOK.read_text(encoding="utf-8").partition("| metric |")[2].partition("\n\n")[0]
    cells = [line.split("|")[1] for line in table.splitlines()[2:]]
    named = re.findall(r"`([a-z0-9_]+)", " ".join(cells))
    explained = {"rankserve_" + re.sub("_(total|info)$", "", name) for name in named if name != "process_"}
    assert {name for name in shown if not name.endswith("_created")} == explained
