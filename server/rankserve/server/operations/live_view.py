"""What the live page shows: a point a second of the last minutes, who is next, who runs. No prompt text."""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from time import monotonic, time
from typing import Any

from rankserve.server.errors import RequestError
from rankserve.server.events import Finished
from rankserve.server.metrics.state_collector import STATES
from rankserve.server.operations.rolling import Rate, RollingValues
from rankserve.server.requests import LiveRequest
from rankserve.server.scheduling.by_model import AnyScheduler
from rankserve.server.scheduling.request import Request
from rankserve.v1 import scheduler_pb2 as pb

_POINTS = 300
_WAITING_SHOWN = 30
_RUNNING_SHOWN = 64


@dataclass(slots=True, frozen=True)
class Point:
    """The server at one moment: rates over the last ten seconds, latencies over the last minute.

    `time` is Unix time; what cannot be told yet is None.
    """

    time: float
    waiting: int
    running: int
    kv_usage: float
    requests_per_s: float
    tokens_per_s: float
    refused_per_s: float
    ttft_p50_s: float | None
    ttft_p99_s: float | None
    e2e_p50_s: float | None
    e2e_p99_s: float | None
    kendall_tau: float | None


class RecentLatencies:
    """Latencies of requests that ended within the last minute (an observer)."""

    def __init__(self) -> None:
        self.first_token = RollingValues()
        self.end_to_end = RollingValues()

    def ended(self, live: LiveRequest) -> None:
        if live.first_token_s is not None:
            self.first_token.add(live.ended_s, live.first_token_s - live.request.arrival_s)
        if isinstance(live.outcome, Finished):
            self.end_to_end.add(live.ended_s, live.outcome.timing.last_token_s)

    def accepted(self, live: LiveRequest) -> None: ...

    def refused(self, error: RequestError) -> None: ...

    def scored(self, live: LiveRequest, duration_s: float) -> None: ...

    def started(self, live: LiveRequest) -> None: ...


class LiveView:
    """Looks at a server for people.

    Args:
        stats: reads the server's counters.
        scheduler: who is next and who runs.
        latencies: of what ended lately.
    """

    def __init__(
        self,
        stats: Callable[[], pb.GetStatsResponse],
        scheduler: AnyScheduler,
        latencies: RecentLatencies,
        clock: Callable[[], float] = monotonic,
        wall_clock: Callable[[], float] = time,
    ) -> None:
        self._stats = stats
        self._scheduler = scheduler
        self._latencies = latencies
        self._clock = clock
        self._wall_clock = wall_clock
        self._rate = Rate()
        self._points: deque[Point] = deque(maxlen=_POINTS)
        self.sample()

    def sample(self) -> None:
        """Adds a point; to be called about once a second."""
        stats, now_s = self._stats(), self._clock()
        requests, tokens, refused = self._rate.per_s(
            now_s, stats.finished_total, stats.output_tokens_total, stats.refused_total
        )
        ttft_p50_s, ttft_p99_s = self._latencies.first_token.quantiles(now_s, 0.5, 0.99)
        e2e_p50_s, e2e_p99_s = self._latencies.end_to_end.quantiles(now_s, 0.5, 0.99)
        self._points.append(
            Point(
                time=self._wall_clock(),
                waiting=stats.waiting,
                running=stats.running,
                kv_usage=stats.kv_blocks_used / stats.kv_blocks_total if stats.kv_blocks_total else 0.0,
                requests_per_s=requests,
                tokens_per_s=tokens,
                refused_per_s=refused,
                ttft_p50_s=ttft_p50_s,
                ttft_p99_s=ttft_p99_s,
                e2e_p50_s=e2e_p50_s,
                e2e_p99_s=e2e_p99_s,
                kendall_tau=_tau_of_active(stats)[0],
            )
        )

    def history(self) -> list[dict[str, Any]]:
        """The points of the last five minutes, oldest first."""
        return [_rounded(point) for point in self._points]

    def snapshot(self) -> dict[str, Any]:
        """Everything but the history, as JSON can hold it."""
        stats, now_s = self._stats(), self._clock()
        return {
            "server": {
                "state": STATES.get(stats.state, ""),
                "state_detail": stats.state_detail,
                "policy": stats.policy,
                "engine": stats.engine,
                "time_scale": stats.time_scale,
                "ranker_version": stats.ranker_version,
                "ranker_detail": stats.ranker_detail,
                "uptime_s": round(stats.uptime_s),
                "max_sequences": stats.max_sequences,
                "kv_blocks_used": stats.kv_blocks_used,
                "kv_blocks_total": stats.kv_blocks_total,
                "scoring": stats.scoring,
                "open_streams": stats.open_streams,
                "engine_lag": round(stats.engine_lag, 4),
                "kendall_tau_requests": _tau_of_active(stats)[1],
                "accepted": stats.accepted_total,
                "finished": stats.finished_total,
                "cancelled": stats.cancelled_total,
                "expired": stats.expired_total,
                "failed": stats.failed_total,
                "refused": stats.refused_total,
                "preemptions": stats.preemptions_total,
                "promotions": stats.promotions_total,
                "neutral_scores": stats.neutral_scores_total,
            },
            "now": _rounded(self._points[-1]),
            "queue": [_waiting(r, now_s) for r in self._scheduler.next_requests(now_s, _WAITING_SHOWN)],
            "batch": [_running(r, now_s) for r in self._scheduler.running_requests(_RUNNING_SHOWN)],
        }


def _tau_of_active(stats: pb.GetStatsResponse) -> tuple[float | None, int]:
    for accuracy in stats.ranker_accuracy:
        if accuracy.ranker_version == stats.ranker_version:
            tau = accuracy.kendall_tau if accuracy.HasField("kendall_tau") else None
            return tau, accuracy.requests
    return None, 0


def _waiting(request: Request, now_s: float) -> dict[str, Any]:
    return {
        "id": request.id,
        "tenant": request.tenant,
        "priority": request.priority,
        "score": _finite(request.score, 4),
        "expected_tokens": _finite(request.expected_tokens, 0),
        "prompt_tokens": request.prompt_tokens,
        "waited_s": round(now_s - request.waiting_since_s, 2),
        "preemptions": request.preemptions,
    }


def _running(request: Request, now_s: float) -> dict[str, Any]:
    return {
        "id": request.id,
        "tenant": request.tenant,
        "priority": request.priority,
        "prompt_tokens": request.prompt_tokens,
        "output_tokens": request.output_tokens,
        "expected_tokens": _finite(request.expected_tokens, 0),
        "max_tokens": request.max_tokens,
        "age_s": round(now_s - request.arrival_s, 2),
    }


def _finite(value: float, digits: int) -> float | None:
    return round(value, digits) if math.isfinite(value) else None


def _rounded(point: Point) -> dict[str, Any]:
    return {name: None if value is None else round(value, 4) for name, value in asdict(point).items()}
