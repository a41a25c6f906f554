"""Protobuf as bytes, for what no protobuf library would write."""

VARINT, FIXED64, BYTES, GROUP_START, GROUP_END, FIXED32 = range(6)


def varint(number: int) -> bytes:
    """Of a number modulo 2**64, as negative ones are written."""
    number %= 1 << 64
    digits = bytearray()
    while number >= 128:
        digits.append(number % 128 + 128)
        number >>= 7
    digits.append(number)
    return bytes(digits)


def tag(field: int, wire_type: int) -> bytes:
    return varint(field << 3 | wire_type)


def delimited(field: int, data: bytes) -> bytes:
    """A string, bytes or a message."""
    return tag(field, BYTES) + varint(len(data)) + data


def nested(field: int, depth: int) -> bytes:
    """Messages within messages of the same field number."""
    data = b""
    for _ in range(depth):
        data = delimited(field, data)
    return data


def groups(field: int, depth: int) -> bytes:
    """Groups within groups."""
    return tag(field, GROUP_START) * depth + tag(field, GROUP_END) * depth
