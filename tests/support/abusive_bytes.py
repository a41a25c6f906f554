"""Connections on which anything comes but what the port takes."""

import asyncio
from contextlib import suppress
from random import Random

from support import raw_http2

_READ_BYTES = 1 << 20
_TLS_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"


async def send_bytes(address: str, data: bytes, *, wait_s: float = 0.2, half_close: bool = False) -> bytes:
    """Sends bytes on a connection of its own; returns what comes until the end, or for so long."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    received = b""
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(wait_s):
            writer.write(data)
            if half_close:
                writer.write_eof()
            while len(received) < _READ_BYTES and (chunk := await reader.read(1 << 16)):
                received += chunk
    writer.transport.abort()
    return received


async def open_and_drop(address: str, count: int) -> None:
    """So many connections at a time, none of which says anything."""
    host, _, port = address.rpartition(":")
    opened = await asyncio.gather(*(asyncio.open_connection(host, int(port)) for _ in range(count)))
    for _, writer in opened:
        writer.transport.abort()


async def byte_by_byte(address: str, data: bytes, *, seconds: float) -> None:
    """Sends bytes one at a time, as long as the server puts up with it and the time lasts."""
    host, _, port = address.rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    with suppress(ConnectionError):
        for byte in data:
            writer.write(bytes((byte,)))
            await writer.drain()
            await asyncio.sleep(seconds / len(data))
    writer.transport.abort()


def no_grpc(draw: Random) -> bytes:
    """What comes on a gRPC port when somebody is mistaken, or means harm."""
    opening = raw_http2.opening()
    match draw.randrange(9):
        case 0:
            return draw.randbytes(draw.choice((1, 9, 24, 1000, 65536)))
        case 1:
            return b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
        case 2:
            return _TLS_HELLO + draw.randbytes(draw.randrange(600))
        case 3:
            return opening[: draw.randrange(len(opening))]
        case 4:
            return opening + draw.randbytes(draw.choice((9, 100, 10_000)))
        case 5:
            return opening + b"".join(_any_frame(draw) for _ in range(draw.choice((1, 10, 100))))
        case 6:
            return opening + _call(draw) + b"".join(_any_frame(draw) for _ in range(draw.randrange(10)))
        case 7:
            data = bytearray(opening + _call(draw))
            for _ in range(draw.choice((1, 3, 10))):
                data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
            return bytes(data)
        case _:
            # Opens and resets streams as fast as it can.
            reset = raw_http2.frame(3, 0, 1, bytes(4))
            return opening + (_call(draw) + reset) * draw.choice((1, 50)) + raw_http2.ping() * 500


def _call(draw: Random) -> bytes:
    path = draw.choice(
        (
            b"/rankserve.v1.SchedulerService/Submit",
            b"/rankserve.v1.SchedulerService/GetStats",
            b"/rankserve.v1.SchedulerService/\xff\xfe",
            b"/" + b"x" * draw.choice((0, 10_000)),
            b"",
            b"*",
        )
    )
    metadata = [
        (
            draw.choice((b"grpc-timeout", b"grpc-encoding", b"te", b"X", b"")),
            draw.randbytes(draw.randrange(30)),
        )
        for _ in range(draw.randrange(4))
    ]
    return raw_http2.headers(path, metadata) + raw_http2.frame(0, draw.choice((0, 1)), 1, _payload(draw))


def _payload(draw: Random) -> bytes:
    data = draw.randbytes(draw.randrange(50))
    announced = draw.choice((len(data), 0, 1 << 20, (1 << 32) - 1))
    return bytes((draw.choice((0, 1, 255)),)) + announced.to_bytes(4, "big") + data


def _any_frame(draw: Random) -> bytes:
    payload = draw.randbytes(draw.choice((0, 4, 5, 6, 8, 100)))
    stream = draw.choice((0, 1, 1, 2, 3, (1 << 31) - 1, (1 << 32) - 1))
    return raw_http2.frame(draw.randrange(12), draw.randrange(256), stream, payload)
