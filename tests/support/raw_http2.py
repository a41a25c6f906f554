"""gRPC calls as bytes, for what no gRPC library would send."""

import asyncio
import time
from collections.abc import Iterable

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEADERS, _DATA, _SETTINGS, _PING = 1, 0, 4, 6
_END_STREAM, _END_HEADERS = 1, 4


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def opening() -> bytes:
    """How a connection begins."""
    return _PREFACE + frame(_SETTINGS, 0, 0)


def headers(path: bytes, metadata: Iterable[tuple[bytes, bytes]] = ()) -> bytes:
    """Opens stream 1 with a call of the method `path`."""
    fields = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path),
        (b":authority", b"localhost"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        *metadata,
    ]
    # Literal, neither indexed nor compressed.
    return frame(_HEADERS, _END_HEADERS, 1, b"".join(b"\0" + _text(k) + _text(v) for k, v in fields))


def message(data: bytes) -> bytes:
    """A call's only message."""
    return frame(_DATA, _END_STREAM, 1, b"\0" + len(data).to_bytes(4, "big") + data)


def ping() -> bytes:
    return frame(_PING, 0, 0, bytes(8))


async def exchange(address: str, data: bytes, *, until: bytes, timeout_s: float = 20.0) -> bytes:
    """Sends bytes on a connection of its own and reads until it sees others, or the end.

    Raises:
        TimeoutError: neither came.
    """
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    received = b""
    try:
        writer.write(data)
        async with asyncio.timeout(timeout_s):
            while until not in received and (chunk := await reader.read(65536)):
                received += chunk
    except ConnectionError:
        pass
    finally:
        writer.close()
    return received


async def grpc_status(address: str, path: bytes, metadata: Iterable[tuple[bytes, bytes]] = ()) -> int:
    """The status that one call with an empty message ends with."""
    answer = await exchange(
        address, opening() + headers(path, metadata) + message(b""), until=b"grpc-message"
    )
    field = answer.partition(b"grpc-status")[2]
    return int(field[1 : 1 + field[0]])


async def end_of_call(
    address: str, path: bytes, metadata: Iterable[tuple[bytes, bytes]], data: bytes | None
) -> tuple[int, float]:
    """Makes a call, which stays open for more messages, and leaves its end to the server.

    Args:
        address: the server's.
        path: the method.
        metadata: beside what gRPC needs.
        data: one message; None sends none, so the server waits for it.

    Returns:
        The status, and the seconds from the call to it.
    """
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(opening())
        # The server has answered, so the time that follows is the call's alone.
        received = await reader.read(65536)
        began_s = time.perf_counter()
        writer.write(headers(path, metadata))
        if data is not None:
            writer.write(frame(_DATA, 0, 1, b"\0" + len(data).to_bytes(4, "big") + data))
        async with asyncio.timeout(20):
            while b"grpc-message" not in received and (chunk := await reader.read(65536)):
                received += chunk
        taken_s = time.perf_counter() - began_s
    finally:
        writer.close()
    field = received.partition(b"grpc-status")[2]
    return int(field[1 : 1 + field[0]]), taken_s


def _text(value: bytes) -> bytes:
    if len(value) < 127:
        return bytes((len(value),)) + value
    length, digits = len(value) - 127, b""
    while length >= 128:
        digits += bytes((length % 128 + 128,))
        length //= 128
    return b"\x7f" + digits + bytes((length,)) + value
