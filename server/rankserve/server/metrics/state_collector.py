"""What the server counts anyway, read when somebody asks: a scrape agrees with `GetStats`."""

import asyncio
from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from rankserve.server.metrics.request_metrics import PREFIX
from rankserve.server.ranking.ranker import Ranker
from rankserve.v1 import scheduler_pb2 as pb

STATES = {
    pb.SERVER_STATE_SERVING: "serving",
    pb.SERVER_STATE_PAUSED: "paused",
    pb.SERVER_STATE_DRAINING: "draining",
    pb.SERVER_STATE_FAILED: "failed",
}

# (name, help, field of GetStatsResponse)
_GAUGES = (
    ("num_requests_running", "Requests in the engine's batch.", "running"),
    ("num_requests_waiting", "Requests that wait to start.", "waiting"),
    ("num_requests_scoring", "Live requests that have no score yet.", "scoring"),
    ("waiting_bytes", "Prompts that wait, in bytes of UTF-8.", "waiting_bytes"),
    ("open_streams", "Submit, Generate and Watch calls that are open.", "open_streams"),
    ("engine_max_sequences", "Batch cap in sequences.", "max_sequences"),
    ("engine_max_batched_tokens", "Batch cap in tokens for one step.", "max_batched_tokens"),
    ("engine_kv_blocks", "KV blocks in total.", "kv_blocks_total"),
    ("engine_time_scale", "Simulated seconds per wall-clock second; 1 for a real engine.", "time_scale"),
    (
        "engine_lag_ratio",
        "How far a simulated engine fell behind, as a share of its busy time.",
        "engine_lag",
    ),
)
_COUNTERS = (
    ("requests_accepted", "Requests accepted, those taken over from the journal included.", "accepted_total"),
    ("requests_recovered", "Requests taken over from the journal at the start.", "recovered_total"),
    ("requests_shed", "Requests dropped from a full queue for others of better priority.", "shed_total"),
    ("slow_clients", "Streams cut because their client did not read.", "slow_clients_total"),
    ("num_preemptions", "Evictions of running requests.", "preemptions_total"),
    ("num_promotions", "Starts that starvation prevention brought forward.", "promotions_total"),
    ("generation_tokens", "Output tokens.", "output_tokens_total"),
    ("engine_steps", "Steps of the engine.", "steps_total"),
    (
        "neutral_scores",
        "Requests scored neutral since the ranker failed or was late.",
        "neutral_scores_total",
    ),
)
_OUTCOMES = ("finished", "cancelled", "expired", "failed")


class StateCollector(Collector):
    """Queue, engine, scheduler and ranker at the moment of a scrape, which is on the server's event loop.

    Args:
        stats: reads the server's counters.
        ranker: whose active version states the tau it had at export.
    """

    def __init__(self, stats: Callable[[], pb.GetStatsResponse], ranker: Ranker) -> None:
        self._stats = stats
        self._ranker = ranker

    def collect(self) -> Iterator[Metric]:
        stats = self._stats()
        for name, text, field in _GAUGES:
            yield GaugeMetricFamily(PREFIX + name, text, value=getattr(stats, field))
        for name, text, field in _COUNTERS:
            yield CounterMetricFamily(PREFIX + name, text, value=getattr(stats, field))
        yield GaugeMetricFamily(
            PREFIX + "asyncio_tasks", "Tasks of the event loop.", value=len(asyncio.all_tasks())
        )
        usage = stats.kv_blocks_used / stats.kv_blocks_total if stats.kv_blocks_total else 0.0
        yield GaugeMetricFamily(PREFIX + "kv_cache_usage_perc", "KV blocks in use; 1 = all.", value=usage)
        yield self._ended(stats)
        yield self._journal(stats)
        yield self._state(stats)
        for name, text, label, value in (
            ("policy", "The policy that orders the queue.", "policy", stats.policy),
            ("ranker", "The active ranker version.", "ranker_version", stats.ranker_version),
            ("engine", "The engine.", "engine", stats.engine),
        ):
            yield InfoMetricFamily(PREFIX + name, text, value={label: value})
        yield from self._tau(stats)
        yield from self._endpoints(stats)

    def _ended(self, stats: pb.GetStatsResponse) -> Metric:
        family = CounterMetricFamily(
            PREFIX + "requests_ended", "Accepted requests that ended.", labels=["outcome"]
        )
        for outcome in _OUTCOMES:
            family.add_metric([outcome], getattr(stats, f"{outcome}_total"))
        return family

    def _journal(self, stats: pb.GetStatsResponse) -> Metric:
        family = GaugeMetricFamily(
            PREFIX + "journal_requests",
            "Requests in the journal: live, or ended and retained.",
            labels=["state"],
        )
        family.add_metric(["live"], stats.journal_live)
        family.add_metric(["retained"], stats.journal_retained)
        return family

    def _state(self, stats: pb.GetStatsResponse) -> Metric:
        family = GaugeMetricFamily(
            PREFIX + "server_state", "1 for the state the server is in, 0 for the others.", labels=["state"]
        )
        for number, name in STATES.items():
            family.add_metric([name], float(stats.state == number))
        return family

    def _tau(self, stats: pb.GetStatsResponse) -> Iterator[Metric]:
        label = ["ranker_version"]
        tau = GaugeMetricFamily(
            PREFIX + "ranker_kendall_tau",
            "Kendall's tau-b between negated score and output tokens of the requests that finished last.",
            labels=label,
        )
        requests = GaugeMetricFamily(
            PREFIX + "ranker_kendall_tau_window_requests", "Requests that it is computed on.", labels=label
        )
        for accuracy in stats.ranker_accuracy:
            requests.add_metric([accuracy.ranker_version], accuracy.requests)
            if accuracy.HasField("kendall_tau"):
                tau.add_metric([accuracy.ranker_version], accuracy.kendall_tau)
        at_export = GaugeMetricFamily(
            PREFIX + "ranker_export_kendall_tau",
            "The tau that the active version had at export.",
            labels=label,
        )
        active = self._ranker.active
        if active is not None and "kendall_tau" in active.manifest.metrics:
            at_export.add_metric([active.reference], active.manifest.metrics["kendall_tau"])
        trouble = GaugeMetricFamily(
            PREFIX + "ranker_trouble",
            "1 while something is wrong with the ranker.",
            value=bool(stats.ranker_detail),
        )
        yield from (tau, requests, at_export, trouble)

    def _endpoints(self, stats: pb.GetStatsResponse) -> Iterator[Metric]:
        labels = ["url", "model"]
        serves = GaugeMetricFamily(
            PREFIX + "endpoint_serves", "1 while the LLM's server is given requests.", labels=labels
        )
        in_flight = GaugeMetricFamily(
            PREFIX + "endpoint_requests", "Requests that the LLM's server has from us.", labels=labels
        )
        limit = GaugeMetricFamily(PREFIX + "endpoint_limit", "The most that it is given.", labels=labels)
        for endpoint in stats.endpoints:
            values = [endpoint.url, endpoint.model]
            serves.add_metric(values, float(endpoint.circuit != "open"))
            in_flight.add_metric(values, endpoint.in_flight)
            limit.add_metric(values, endpoint.limit)
        yield from (serves, in_flight, limit)
