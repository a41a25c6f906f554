"""Bodies are changed where they must be, and nowhere else."""

import json
from typing import Any

import pytest

from rankserve.server.gateway.errors import RefusalError
from rankserve.server.gateway.json_bodies import json_object, with_fields

ODD = (
    b' {"a":1E2, "b" : 0.10000000000000000001,"c":1e400,"d":NaN,"d":-0,'
    b'"e":"\\u00e9\xc3\xa9\\ud800","n":{"p":1}}\n'
)


def written(raw: bytes, **fields: Any) -> bytes:
    body = json_object(raw)
    assert body is not None
    return with_fields(raw, body, fields)


def test_all_else_stays_byte_for_byte() -> None:
    assert written(ODD, p=7) == ODD.replace(b"{", b'{"p":7,', 1)
    assert written(ODD, p={"s": "\u00e9"}, q=None) == ODD.replace(b"{", b'{"p":{"s":"\xc3\xa9"},', 1)
    assert written(ODD, p=None) == ODD


@pytest.mark.parametrize("raw", [b"{}", b" { }", b"\n{\n}\n"])
def test_an_empty_object(raw: bytes) -> None:
    assert json.loads(written(raw, p=7)) == {"p": 7}


@pytest.mark.parametrize("name", [b"p", b"\\u0070"])
def test_a_field_that_is_there_is_replaced_or_taken_out(name: bytes) -> None:
    raw = b'{"a": "\xc3\xa9", "' + name + b'": 1, "p": 2, "b": [1, 2]}'
    assert written(raw, p=7) == b'{"a":"\xc3\xa9","b":[1,2],"p":7}'
    assert written(raw, p=None) == b'{"a":"\xc3\xa9","b":[1,2]}'


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32-be"])
def test_other_encodings_become_utf_8(encoding: str) -> None:
    assert written('{"a": "\u00e9"}'.encode(encoding), p=7) == b'{"a":"\xc3\xa9","p":7}'


def test_half_of_a_surrogate_pair_stays_an_escape() -> None:
    assert written(b'{"a": "\\ud800", "p": 1}', p=7) == b'{"a":"\\ud800","p":7}'


@pytest.mark.parametrize("number", [b"1e400", b"NaN", b"-Infinity"])
def test_what_json_cannot_say_is_not_written_anew(number: bytes) -> None:
    with pytest.raises(RefusalError, match="a number that JSON does not know") as refused:
        written(b'{"p": 1, "a": ' + number + b"}", p=7)
    assert refused.value.status == 400


@pytest.mark.parametrize("raw", [b'{"a":' * 10_000, b'{"a": ' + b"1" * 5000 + b"}"])
def test_what_cannot_be_read_to_its_end_is_refused(raw: bytes) -> None:
    with pytest.raises(RefusalError, match="too deep a nesting, or too long a number"):
        json_object(raw)


@pytest.mark.parametrize("raw", [b"", b"{", b"[1]", b"null", b"\xff", b'{"a": 01}'])
def test_what_is_no_object_is_none(raw: bytes) -> None:
    assert json_object(raw) is None
