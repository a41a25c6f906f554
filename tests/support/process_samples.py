"""What a server process holds, seen from outside."""

import urllib.request
from pathlib import Path
from time import monotonic, sleep

from prometheus_client.parser import text_string_to_metric_families
from support.leaks import Held

_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_SETTLE_TIMEOUT_S = 60
_SETTLED_S = 1.0
_IDLE_SAMPLES = 5


class Observed:
    """A server process.

    Args:
        pid: its process id.
        operations: its operations address, host:port.
    """

    def __init__(self, pid: int, operations: str) -> None:
        self._process = Path("/proc") / str(pid)
        self._metrics_url = f"http://{operations}/metrics"

    def rss_mib(self) -> float:
        for line in (self._process / "smaps_rollup").read_text(encoding="ascii").splitlines():
            name, *value = line.split()
            if name == "Rss:":
                return int(value[0]) / 1024
        raise RuntimeError("the kernel tells no Rss")

    def metrics(self) -> dict[str, float]:
        """By name, those without labels."""
        with _OPENER.open(self._metrics_url, timeout=60) as answer:
            text = answer.read().decode()
        return {
            sample.name: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if not sample.labels
        }

    def held(self, metrics: dict[str, float]) -> Held:
        return Held(
            len(list((self._process / "fd").iterdir())),
            len(list((self._process / "task").iterdir())),
            metrics["rankserve_asyncio_tasks"],
        )

    def idle(self) -> list[Held]:
        """Waits until no request lives, no stream is open and a second has changed nothing; samples then.

        Raises:
            AssertionError: a request or a stream is still there after a minute.
        """
        deadline_s = monotonic() + _SETTLE_TIMEOUT_S
        before: Held | None = None
        while True:
            metrics = self.metrics()
            now = self.held(metrics)
            busy = {name: metrics[f"rankserve_{name}"] for name in _BUSY if metrics[f"rankserve_{name}"]}
            if not busy and (now == before or monotonic() > deadline_s):
                break
            assert monotonic() < deadline_s, f"never idle: {busy}"
            before = now
            sleep(_SETTLED_S)
        samples = []
        for _ in range(_IDLE_SAMPLES):
            samples.append(self.held(self.metrics()))
            sleep(0.1)
        return samples


_BUSY = (
    "num_requests_running",
    "num_requests_waiting",
    "num_requests_scoring",
    "open_streams",
)
