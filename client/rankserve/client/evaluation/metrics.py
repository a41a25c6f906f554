"""The figures of one run."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rankserve.client.evaluation.latency import FINISHED, finished, latencies
from rankserve.client.evaluation.summary import Summary
from rankserve.client.evaluation.tau import kendall_tau, kendall_tau_ceiling, kendall_tau_prompt_length
from rankserve.records.results import ResultRecord, Run


@dataclass(slots=True, frozen=True)
class RunMetrics:
    """Figures over the finished requests of a run, in the LLM's own seconds; failures are only counted.

    Attributes:
        policy: what ordered the requests.
        requests, finished: how many were sent, and how many finished.
        failures: outcome -> how many, of the others.
        e2e_s, ttft_s, tpot_s, max_waiting_s, scoring_s, normalised_s_per_token: see latency.Latency; None
            without any.
        duration_s: first request sent until last result.
        requests_per_s, output_tokens_per_s: finished over ``duration_s``.
        kendall_tau: of the ranker's scores; see tau.
        kendall_tau_ceiling: what a ranker could reach on this workload.
        kendall_tau_prompt_length: what the prompt's length alone reaches.
        queue_depth_mean, queue_depth_max: requests waiting, over the run; None where nobody looked.
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


def evaluate(run: Run) -> RunMetrics:
    """The figures of a run."""
    done = finished(run)
    values = latencies(run).values()
    duration_s = _duration(done) * run.header.time_scale
    depths = [depth for _, depth in run.header.queue_depth]
    return RunMetrics(
        policy=run.header.policy,
        requests=len(run.results),
        finished=len(done),
        failures=dict(Counter(r.outcome for r in run.results if r.outcome != FINISHED)),
        e2e_s=Summary.of(value.e2e_s for value in values),
        ttft_s=Summary.of(value.ttft_s for value in values),
        tpot_s=Summary.of(value.tpot_s for value in values if value.tpot_s is not None),
        normalised_s_per_token=Summary.of(value.normalised_s_per_token for value in values),
        max_waiting_s=Summary.of(value.max_waiting_s for value in values),
        scoring_s=Summary.of(value.scoring_s for value in values),
        duration_s=duration_s,
        requests_per_s=len(done) / duration_s if duration_s else 0.0,
        output_tokens_per_s=sum(r.output_tokens for r in done) / duration_s if duration_s else 0.0,
        kendall_tau=kendall_tau(run),
        kendall_tau_ceiling=kendall_tau_ceiling(run),
        kendall_tau_prompt_length=kendall_tau_prompt_length(run),
        queue_depth_mean=sum(depths) / len(depths) if depths else None,
        queue_depth_max=max(depths, default=None),
        preemptions=sum(result.preemptions for result in run.results),
        promoted=sum(result.promoted for result in run.results),
        engine_lag=run.header.engine_lag,
    )


def _duration(results: Sequence[ResultRecord]) -> float:
    if not results:
        return 0.0
    return max(result.end_s for result in results) - min(result.sent_s for result in results)
