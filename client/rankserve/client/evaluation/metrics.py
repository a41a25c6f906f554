"""The figures of one run."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rankserve.client.evaluation.columns import FINISHED, AnyRun, ResultColumns, as_columns
from rankserve.client.evaluation.latency import latencies
from rankserve.client.evaluation.summary import Summary
from rankserve.client.evaluation.tau import kendall_tau, kendall_tau_ceiling, kendall_tau_prompt_length


@dataclass(slots=True, frozen=True)
class RunMetrics:
    """Figures over the finished requests of a run, in the LLM's own seconds; failures are only counted.

    Attributes:
        policy: what ordered the requests.
        requests, finished: how many were sent, and how many finished.
        failures: outcome -> how many, of the others.
        e2e_s, ttft_s, tpot_s, max_waiting_s, scoring_s, normalised_s_per_token: see latency.Latencies;
            None without any.
        duration_s: first request sent until last result.
        requests_per_s, output_tokens_per_s: finished over ``duration_s``.
        kendall_tau: of the ranker's scores; see tau.
        kendall_tau_ceiling: what a ranker could reach on this workload.
        kendall_tau_prompt_length: what the prompt's length alone reaches.
        queue_depth_mean, queue_depth_max: requests waiting, over the run; None where nobody looked.
        kv_use_mean, kv_use_max: KV blocks in use as shares of all; None where they are not known.
        steps: LLM steps; None where they are not known.
        preemptions: evictions, all requests together.
        promoted: requests that starvation prevention moved.
        engine_lag: how far the simulated engine fell behind its clock, as a fraction of its busy time.
    """

    policy: str
    requests: int
    finished: int
    failures: dict[str, int]
    e2e_s: Summary | None
    ttft_s: Summary | None
    tpot_s: Summary | None
    normalised_s_per_token: Summary | None
    max_waiting_s: Summary | None
    scoring_s: Summary | None
    duration_s: float
    requests_per_s: float
    output_tokens_per_s: float
    kendall_tau: float | None
    kendall_tau_ceiling: float | None
    kendall_tau_prompt_length: float | None
    queue_depth_mean: float | None
    queue_depth_max: int | None
    kv_use_mean: float | None
    kv_use_max: float | None
    steps: int | None
    preemptions: int
    promoted: int
    engine_lag: float

    @property
    def failed(self) -> int:
        """Requests that did not finish."""
        return self.requests - self.finished

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def evaluate(run: AnyRun) -> RunMetrics:
    """The figures of a run."""
    columns = as_columns(run)
    header, results = columns.header, columns.results
    finished = columns.finished()
    done, values = finished.results, latencies(finished)
    duration_s = _duration(done) * header.time_scale
    depths = [depth for _, depth in header.queue_depth]
    usage = header.engine_usage
    return RunMetrics(
        policy=header.policy,
        requests=len(results),
        finished=len(done),
        failures=_failures(results),
        e2e_s=Summary.of(values.e2e_s),
        ttft_s=Summary.of(values.ttft_s),
        tpot_s=Summary.of(values.tpot_s[~np.isnan(values.tpot_s)]),
        normalised_s_per_token=Summary.of(values.normalised_s_per_token),
        max_waiting_s=Summary.of(values.max_waiting_s),
        scoring_s=Summary.of(values.scoring_s),
        duration_s=duration_s,
        requests_per_s=len(done) / duration_s if duration_s else 0.0,
        output_tokens_per_s=int(done.output_tokens.sum()) / duration_s if duration_s else 0.0,
        kendall_tau=kendall_tau(finished),
        kendall_tau_ceiling=kendall_tau_ceiling(finished),
        kendall_tau_prompt_length=kendall_tau_prompt_length(finished),
        queue_depth_mean=sum(depths) / len(depths) if depths else None,
        queue_depth_max=max(depths, default=None),
        kv_use_mean=usage.get("kv_use_mean"),
        kv_use_max=usage.get("kv_use_max"),
        steps=int(usage["steps"]) if "steps" in usage else None,
        preemptions=int(results.preemptions.sum()),
        promoted=int(results.promoted.sum()),
        engine_lag=header.engine_lag,
    )


def _failures(results: ResultColumns) -> dict[str, int]:
    outcomes, counts = np.unique(results.outcome[results.outcome != FINISHED], return_counts=True)
    return dict(zip(outcomes.tolist(), counts.tolist(), strict=True))


def _duration(results: ResultColumns) -> float:
    return float(results.end_s.max() - results.sent_s.min()) if len(results) else 0.0
