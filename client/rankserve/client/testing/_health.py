"""The standard health service, without the package that the base install does not have."""

import threading
from collections.abc import Iterator
from typing import Any

import grpc

# A grpc.health.v1.HealthCheckResponse that holds only its status.
SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"
LOOK_S = 0.5


class FakeHealth:
    """Says the same of every service."""

    def __init__(self) -> None:
        self._serving = True
        self._closed = False
        self._changed = threading.Condition()

    def set_serving(self, serving: bool) -> None:
        """Tells everybody who watches."""
        with self._changed:
            self._serving = serving
            self._changed.notify_all()

    def close(self) -> None:
        """Ends every call that watches."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def handler(self) -> grpc.GenericRpcHandler:
        """To add to a server."""
        methods: dict[str, Any] = {
            "Check": grpc.unary_unary_rpc_method_handler(lambda _, __: self._status()),
            "Watch": grpc.unary_stream_rpc_method_handler(self._watch),
        }
        return grpc.method_handlers_generic_handler("grpc.health.v1.Health", methods)

    def _status(self) -> bytes:
        return SERVING if self._serving else NOT_SERVING

    def _watch(self, _: bytes, context: Any) -> Iterator[bytes]:
        told = None
        while context.is_active():
            with self._changed:
                if told == self._status():
                    self._changed.wait(LOOK_S)
                if self._closed:
                    return
                status = self._status()
            if status != told:
                told = status
                yield status
