"""Messages that are almost right, or not at all: the same ones for the same seed."""

import struct
from random import Random

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from support.messages import PROMPT_MARKER
from support.wire_bytes import BYTES, FIXED32, FIXED64, VARINT, delimited, groups, nested, tag, varint

_INTEGERS = (0, 1, 2, 7, 127, 128, 1000, 1001, 8191, 8192, 65535, -1, -1001)
_LARGE_INTEGERS = tuple(
    sign * ((1 << bits) + more) for bits in (31, 32, 63) for more in (-1, 0) for sign in (1, -1)
)
_FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-45, 3.4e38, float("nan"), float("inf"), float("-inf"))
_TEXTS = (
    b"",
    b" ",
    b"\0",
    b"a\0b",
    b"one",
    b"toy",
    b"../../etc/passwd",
    b"%s%n{0}",
    b"\n\r\x1b[31m",
    b"\xff\xfe",  # none of the next four is UTF-8
    b"\xc0\x80",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    "\u202e\ufeff\U0010ffff".encode(),
    "²٣".encode(),
    b"1" * 5000,
    b"x" * 129,
)
_TEXT_FIELDS = {"prompt", "prompts", "content"}
_HUGE = (1 << 16, 1 << 18, (1 << 22) - 4096)
_MIXED_UP = (b"\x08", b"\x0f", b"\xff" * 11, b"\x00", b"\x0a\xff\xff\xff\xff\x0f", varint(1 << 63))


def fuzzed(draw: Random, kind: Descriptor, good: bytes) -> bytes:
    """Bytes for a method that takes `kind`.

    Args:
        draw: decides everything.
        kind: of the message.
        good: one that the method takes.
    """
    choice = draw.random()
    if choice < 0.10:
        return draw.randbytes(draw.choice((0, 1, 3, 17, 100, 1000)))
    if choice < 0.40:
        return _damaged(draw, good)
    if choice < 0.90:
        data = hostile(draw, kind)
        return data if draw.random() < 0.7 else good + data
    if choice < 0.95:
        return good + _unknown(draw)
    return good


def hostile(draw: Random, kind: Descriptor, depth: int = 0) -> bytes:
    """A message of this type whose fields have values that nobody sends."""
    parts = []
    for field in kind.fields:
        if draw.random() < 0.4:
            continue
        if draw.random() < 0.05:
            parts.append(tag(field.number, draw.randrange(8)) + draw.randbytes(draw.randrange(12)))
            continue
        most = 2000 if draw.random() < 0.02 and depth < 2 else draw.choice((1, 1, 2, 3))
        count = most if field.is_repeated else draw.choice((1, 1, 1, 2))
        value = _value(draw, field, depth)
        parts.append(value * count if draw.random() < 0.5 or count > 3 else value)
    if draw.random() < 0.05:
        parts.append(_unknown(draw))
    draw.shuffle(parts)
    return b"".join(parts)


def _value(draw: Random, field: FieldDescriptor, depth: int) -> bytes:
    match field.type:
        case FieldDescriptor.TYPE_MESSAGE:
            assert field.message_type is not None
            inner = hostile(draw, field.message_type, depth + 1) if depth < 4 else b""
            return delimited(field.number, inner)
        case FieldDescriptor.TYPE_STRING | FieldDescriptor.TYPE_BYTES:
            return delimited(field.number, _text(draw, field.name))
        case FieldDescriptor.TYPE_DOUBLE:
            return tag(field.number, FIXED64) + struct.pack("<d", draw.choice(_FLOATS))
        case FieldDescriptor.TYPE_FLOAT:
            return tag(field.number, FIXED32) + struct.pack("<f", draw.choice(_FLOATS))
        case _:
            number = draw.choice(_INTEGERS if draw.random() < 0.7 else _LARGE_INTEGERS)
            if draw.random() < 0.03:
                # Packed, where one number belongs.
                return delimited(field.number, varint(number) * 1000)
            return tag(field.number, VARINT) + varint(number)


def _text(draw: Random, name: str) -> bytes:
    if draw.random() < 0.01:
        return b"x" * draw.choice(_HUGE)
    if name in _TEXT_FIELDS and draw.random() < 0.5:
        return f"{PROMPT_MARKER} ".encode() * draw.choice((1, 2, 50))
    if draw.random() < 0.3:
        return f"fuzz-{draw.randrange(1 << 32)}".encode()
    return draw.choice(_TEXTS)


def _damaged(draw: Random, good: bytes) -> bytes:
    data = bytearray(good)
    match draw.randrange(6):
        case 0:
            for _ in range(draw.choice((1, 1, 2, 8))):
                if data:
                    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        case 1:
            del data[draw.randrange(len(data) + 1) :]
        case 2:
            data *= draw.choice((2, 2, 3, 500))
        case 3:
            data += draw.choice(_MIXED_UP)
        case 4:
            start = draw.randrange(len(data) + 1)
            data[start:start] = draw.choice(_MIXED_UP)
        case 5:
            data += draw.randbytes(draw.randrange(20))
    return bytes(data)


def _unknown(draw: Random) -> bytes:
    field = draw.choice((1, 15, 16, 999, (1 << 29) - 1, 0))
    match draw.randrange(5):
        case 0:
            return nested(field, draw.choice((20, 99, 101, 1000)))
        case 1:
            return groups(field, draw.choice((20, 99, 101, 10_000)))
        case 2:
            return (tag(field, VARINT) + varint(1)) * 5000
        case 3:
            return delimited(field, b"\0" * draw.choice((1, 1000, 100_000)))
        case _:
            return tag(field, BYTES) + varint(1 << draw.choice((20, 31, 32, 63)))
