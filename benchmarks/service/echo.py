"""A bare grpc.aio server that answers what it is sent, and what it does in a second: the yardstick.

Unary calls are answered with their bytes; a streaming call with as many messages as its bytes say.
"""

import asyncio
import multiprocessing
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import grpc

_MESSAGES = 20_000
_OPTIONS = (("grpc.enable_http_proxy", 0),)
# About what a request, or an event, weighs.
_PAYLOAD = b"x" * 100


@contextmanager
def echo_server() -> Iterator[str]:
    """Runs the echo in a process of its own; gives its address."""
    here, there = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(there,), daemon=True)
    process.start()
    try:
        yield str(here.recv())
    finally:
        here.send("stop")
        process.join()


async def unary_calls_s(address: str, concurrency: int, measured_s: float) -> list[float]:
    """How long each unary call took that was made in so many seconds, with so many in flight."""
    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
        call: Any = channel.unary_unary("/echo.Echo/Unary")
        await call(_PAYLOAD)
        end_s = time.perf_counter() + measured_s
        taken_s: list[float] = []

        async def caller() -> None:
            while (began_s := time.perf_counter()) < end_s:
                await call(_PAYLOAD)
                taken_s.append(time.perf_counter() - began_s)

        await asyncio.gather(*(caller() for _ in range(concurrency)))
        return taken_s


async def streamed_messages_per_s(address: str) -> float:
    """Messages that one server stream delivers in a second."""
    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
        stream: Any = channel.unary_stream("/echo.Echo/Stream")
        call = stream(str(_MESSAGES).encode())
        began_s = time.perf_counter()
        received = 0
        while await call.read() is not grpc.aio.EOF:
            received += 1
        return received / (time.perf_counter() - began_s)


class _Echo(grpc.GenericRpcHandler):
    def service(self, handler_call_details: Any) -> Any:
        if handler_call_details.method == "/echo.Echo/Unary":
            return grpc.unary_unary_rpc_method_handler(_unary)
        return grpc.unary_stream_rpc_method_handler(_stream)


async def _unary(request: bytes, context: Any) -> bytes:
    return request


async def _stream(request: bytes, context: Any) -> AsyncIterator[bytes]:
    for _ in range(int(request)):
        yield _PAYLOAD


def _serve(pipe: Connection) -> None:
    asyncio.run(_serve_until_told(pipe))


async def _serve_until_told(pipe: Connection) -> None:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_Echo(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    pipe.send(f"127.0.0.1:{port}")
    await asyncio.to_thread(pipe.recv)
    await server.stop(0)
