"""The health service as grpc-health-checking has it, without the method that it only declares."""

import grpc
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio


class HealthService(aio.HealthServicer):  # type: ignore[misc]
    async def List(
        self,
        request: "health_pb2.HealthListRequest",
        context: "grpc.aio.ServicerContext[object, object]",
    ) -> None:
        """Left to itself it raises, and every call by anybody puts an error into the log."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "ask Check or Watch for a service by its name")
