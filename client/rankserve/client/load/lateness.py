"""How late the sender itself was."""

import logging
import math
import statistics
from collections.abc import Iterable

from rankserve.client.load.tracker import TrackedRequest

log = logging.getLogger(__name__)

# Above this share of the median latency, a run's figures are doubtful.
LATENESS_THAT_MATTERS = 0.05


def sender_lateness_p99(requests: Iterable[TrackedRequest]) -> float:
    """p99 of sent - planned, in seconds. Warns when it is large enough to matter."""
    late, latencies = [], []
    for request in requests:
        if request.sent_s is not None:
            late.append(request.sent_s - request.planned_s)
            if request.completion is not None and request.end_s is not None:
                latencies.append(request.end_s - request.sent_s)
    if not late:
        return 0.0
    p99_s = sorted(late)[math.ceil(0.99 * len(late)) - 1]
    if latencies and p99_s > LATENESS_THAT_MATTERS * statistics.median(latencies):
        log.warning(
            "requests were sent up to %.0f ms late (p99) for a median latency of %.0f ms: "
            "this machine is too slow for the load, do not trust the figures",
            p99_s * 1000,
            statistics.median(latencies) * 1000,
        )
    return p99_s
