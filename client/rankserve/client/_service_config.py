"""What gRPC itself does for a client: spreading calls over healthy replicas, repeating short calls."""

import json
from typing import Any

from rankserve.client._config import Retry
from rankserve.v1 import admin_pb2, ranker_pb2, scheduler_pb2

SCHEDULER = scheduler_pb2.DESCRIPTOR.services_by_name["SchedulerService"].full_name
RANKER = ranker_pb2.DESCRIPTOR.services_by_name["RankerService"].full_name
ADMIN = admin_pb2.DESCRIPTOR.services_by_name["AdminService"].full_name

# Calls that may arrive twice and do no harm.
IDEMPOTENT = [
    *((SCHEDULER, method) for method in ("CancelRequest", "GetRequest", "ListRequests", "GetStats")),
    *((RANKER, method) for method in ("Score", "ListRankerVersions", "LoadRankerVersion")),
    *((ADMIN, method) for method in ("Drain", "Pause", "Resume")),
]
# Of gRPC.
MAX_ATTEMPTS = 5


def service_config(retry: Retry, *, balanced: bool) -> str:
    """The service config of a channel, as JSON.

    A channel to one server does no health check: a server that drains must still answer its operator.
    """
    config: dict[str, Any] = {"methodConfig": []}
    if retry.attempts > 1:
        config["methodConfig"].append(
            {
                "name": [{"service": service, "method": method} for service, method in IDEMPOTENT],
                "retryPolicy": {
                    "maxAttempts": min(retry.attempts, MAX_ATTEMPTS),
                    "initialBackoff": f"{retry.first_backoff_s:.3f}s",
                    "maxBackoff": f"{retry.max_backoff_s:.3f}s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        )
    if balanced:
        config["loadBalancingConfig"] = [{"round_robin": {}}]
        config["healthCheckConfig"] = {"serviceName": SCHEDULER}
    return json.dumps(config)
