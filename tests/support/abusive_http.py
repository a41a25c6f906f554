"""HTTP requests that are almost right, or not at all, as bytes."""

import json
from random import Random
from typing import Any

from support.messages import PROMPT_MARKER

_PATHS = ("/v1/completions", "/v1/chat/completions")
_OTHER_PATHS = (
    "/",
    "/health",
    "/healthz",
    "/readyz",
    "/metrics",
    "/live",
    "/live?x=%00",
    "/v1/models",
    "/v1/models/..%2f..%2fetc%2fpasswd",
    "/v1/models/%00",
    "/v1/models/%ff%fe",
    "/v1/models/" + "x" * 5000,
    "/../../../etc/passwd",
    "/%2e%2e/%2e%2e/etc/passwd",
    "//etc/passwd",
    "/v1/completions/../models",
    "http://elsewhere/v1/models",
    "*",
    "?",
    "/" + "a/" * 3000,
)
_METHODS = ("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW", "post", "X" * 300)
_VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1 << 63,
    1 << 200,
    1e308,
    -0.0,
    "",
    "x" * 100_000,
    "\0",
    "\ud800",
    "\U0010ffff",
    [],
    [[]],
    ["one", "two"],
    {},
    {"a": {"a": {}}},
    [{}] * 1000,
    {str(n): "" for n in range(100)},
)
_NAMES = (
    "model",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "stop",
    "seed",
    "stream_options",
    "user",
    "metadata",
    "request_id",
    "priority",
    "tenant",
    "deadline_ms",
    "detached",
    "prompt",
    "messages",
    "n",
    "tools",
    "logit_bias",
    "response_format",
)
_BOMBS = (
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"[" * 50_000 + b"]" * 50_000,
    b'{"prompt":"one","seed":' + b"9" * 10_000 + b"}",
    b'{"prompt":"one","temperature":1e999999}',
    b'{"prompt":"one","temperature":NaN}',
    b'{"prompt":"\\ud800"}',
    b'{"prompt":"\xff\xfe"}',
    b"\xef\xbb\xbf{}",
    '{"prompt":"one"}'.encode("utf-16"),
    b'{"prompt":"one","prompt":"two"}',
    b'{"prompt":"one"',
    b'{"prompt":"one"} x',
    b"null",
    b'"one"',
    b"",
    b"\0" * 1000,
)
_HEADERS = (
    "content-type: text/plain",
    "content-type: application/x-www-form-urlencoded",
    "content-type: application/json; charset=utf-16",
    "content-type: \xff\xfe",
    "content-encoding: gzip",
    "content-length: -1",
    "content-length: 99999999999999999999999",
    "content-length: 5, 6",
    "content-length: ²",
    "content-length:",
    "transfer-encoding: chunked",
    "transfer-encoding: gzip, chunked",
    "transfer-encoding: identity",
    "expect: 100-continue",
    "expect: miracles",
    "upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-key: x",
    "upgrade: h2c\r\nconnection: upgrade, http2-settings",
    "host:",
    "host: elsewhere",
    "host: [",
    "x-request-id: \xff\xfe",
    "x-request-id: a b\tc",
    "x-request-id: " + "x" * 200,
    "authorization: Bearer nobody",
    "authorization: Basic !!!",
    "authorization: \xff",
    "authorization",
    "accept: " + "*/*," * 500,
    "accept: application/openmetrics-text; version=\xff",
    "cookie: " + "x" * 100_000,
    "\r\nfolded: yes",
    " leading: space",
    "nul: \0",
    "range: bytes=0-",
)


def fuzzed_request(draw: Random, token: str) -> bytes:
    """A request, complete or not; mostly the connection ends with its answer."""
    path = draw.choice(_PATHS)
    method = "POST"
    body = _body(draw, path)
    if draw.random() < 0.3:
        path = draw.choice(_OTHER_PATHS)
        method, body = draw.choice(("GET", *_METHODS)), draw.choice((b"", body))
    headers = ["host: localhost", "connection: close", f"content-length: {len(body)}"]
    headers += ["content-type: application/json", f"authorization: Bearer {token}"]
    match draw.randrange(8):
        case 0 | 1:
            headers[draw.randrange(len(headers))] = draw.choice(_HEADERS)
        case 2:
            headers.insert(draw.randrange(len(headers)), draw.choice(_HEADERS))
        case 3:
            headers[2] = "transfer-encoding: chunked"
            body = _chunked(draw, body)
        case 4:
            headers += [f"x-{n}: {'v' * draw.choice((1, 100))}" for n in range(draw.choice((50, 1000)))]
        case _:
            pass
    version = draw.choice(("HTTP/1.1",) * 9 + ("HTTP/1.0", "HTTP/9.9", "", "HTTP/1.1\r\n"))
    data = bytearray(
        "\r\n".join([f"{method} {path} {version}", *headers, "", ""]).encode("latin-1", "replace")
    )
    data += body
    match draw.randrange(12):
        case 0:
            data = bytearray(draw.randbytes(draw.choice((1, 100, 70_000))))
        case 1:
            del data[draw.randrange(len(data)) :]
        case 2:
            for _ in range(draw.choice((1, 5))):
                data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        case _:
            pass
    return bytes(data)


def statuses(answer: bytes) -> list[int]:
    """Of the responses in what came on a connection."""
    lines = [line for line in answer.split(b"\r\n") if line.startswith(b"HTTP/1.")]
    return [int(line.split(b" ")[1]) for line in lines]


def _body(draw: Random, path: str) -> bytes:
    if draw.random() < 0.2:
        return draw.choice(_BOMBS)
    fields: dict[str, Any] = {"max_tokens": 2, "stream": draw.choice((True, False))}
    if path == _PATHS[0]:
        fields["prompt"] = PROMPT_MARKER
    else:
        fields["messages"] = [{"role": "user", "content": PROMPT_MARKER}]
    for _ in range(draw.choice((0, 1, 1, 2))):
        fields[draw.choice(_NAMES)] = draw.choice(_VALUES)
    if draw.random() < 0.1:
        fields["messages"] = [{"role": draw.choice(_VALUES), "content": draw.choice(_VALUES)}]
    return json.dumps(fields, ensure_ascii=draw.random() < 0.5).encode("utf-8", "surrogatepass")


def _chunked(draw: Random, body: bytes) -> bytes:
    size = draw.choice(
        (b"%x" % len(body), b"0", b"-1", b"ffffffffffffffffffff", b"zz", b"", b"1;x=" + b"y" * 9000)
    )
    return (
        size
        + b"\r\n"
        + body
        + draw.choice((b"\r\n0\r\n\r\n", b"", b"0\r\n\r\n", b"\r\n0\r\ntrailer: x\r\n\r\n"))
    )
