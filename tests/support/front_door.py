"""The OpenAI-compatible API on a dispatcher that does what a test says."""

import json
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import httpx2

from rankserve.server.access.principal import Principal
from rankserve.server.dispatcher import Dispatcher
from rankserve.server.errors import RequestError
from rankserve.server.events import Accepted, EventStream, Failed, Finished, Timing
from rankserve.server.front_door import front_door
from rankserve.server.lifecycle import Lifecycle, State
from rankserve.server.requests import RequestSpec
from rankserve.server.rpc.interceptors.open_streams import OpenStreams
from rankserve.server.rpc.stats import StatsSource
from rankserve.server.settings import ServerSettings

ENGINE = "simulated/test"
ACCEPT_TIME = 1_700_000_000.75


def finished(request_id: str, text: str = "", **fields: Any) -> Finished:
    values: dict[str, Any] = {
        "finish_reason": "stop",
        "input_tokens": 4,
        "output_tokens": 3,
        "score": 1.5,
        "ranker_version": "toy/1",
        "policy": "ranking",
        "preemptions": 0,
        "promoted": False,
        "timing": Timing(ACCEPT_TIME, 0.0, 0.25, 0.3, 0.4, 0.1, 1.0),
        **fields,
    }
    return Finished(request_id, text=text, **values)


class Door:
    """The application, its dispatcher, and a client.

    Attributes:
        specs: what was submitted.
        lost: the streams that were let go of.
        script: told of each request; by default it answers "so the answer ".
        refusal: raised instead of accepting.
        state: of the server.
    """

    def __init__(self, *, find: Callable[[str], Principal | None] | None = None, **options: Any) -> None:
        self.specs: list[RequestSpec] = []
        self.lost: list[EventStream] = []
        self.script: Callable[[RequestSpec, EventStream], None] = self._answer
        self.refusal: RequestError | None = None
        self.state = State.SERVING
        self.engine = SimpleNamespace(
            name=ENGINE, models=(ENGINE,), capacity=SimpleNamespace(max_model_len=8192)
        )
        self.journal = SimpleNamespace(keeps=False)
        self.refusals: list[RequestError] = []
        self.stats = SimpleNamespace(open_streams=0, slow_clients=0)
        timing = {name: options.pop(name) for name in ("body_timeout_s", "keep_alive_s") if name in options}
        limits = options.pop("max_open_streams", 1000), options.pop("max_open_streams_per_caller", 1000)
        self.application = front_door(
            cast(Dispatcher, self),
            cast(Lifecycle, self),
            cast(StatsSource, self.stats),
            OpenStreams(limits[0], limits[1]),
            ServerSettings(flush_interval_ms=0, **options),
            find,
            **timing,
        )
        self.client = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=self.application, raise_app_exceptions=False),
            base_url="http://test",
        )

    def submit(self, spec: RequestSpec, stream: EventStream) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.specs.append(spec)
        stream.open_requests.add(spec.id)
        self.script(spec, stream)

    def refused(self, error: RequestError) -> None:
        self.refusals.append(error)

    def stream_lost(self, stream: EventStream) -> None:
        self.lost.append(stream)

    def _answer(self, spec: RequestSpec, stream: EventStream) -> None:
        stream.put(Accepted(spec.id, ACCEPT_TIME))
        text = "so the answer "
        if not spec.result_only:
            stream.put_tokens(spec.id, 0, 3, text)
        stream.put(finished(spec.id, text if spec.result_only else ""))

    def fail_with(self, error: RequestError, *, after_text: str = "") -> None:
        def script(spec: RequestSpec, stream: EventStream) -> None:
            stream.put(Accepted(spec.id, ACCEPT_TIME))
            if after_text:
                stream.put_tokens(spec.id, 0, 1, after_text)
            stream.put(Failed(spec.id, error))

        self.script = script

    async def complete(self, body: dict[str, Any], **headers: str) -> httpx2.Response:
        return await self._post("/v1/completions", {"prompt": "one two", **body}, headers)

    async def chat(self, body: dict[str, Any], **headers: str) -> httpx2.Response:
        messages = [{"role": "user", "content": "one two"}]
        return await self._post("/v1/chat/completions", {"messages": messages, **body}, headers)

    async def _post(self, path: str, body: dict[str, Any], headers: dict[str, str]) -> httpx2.Response:
        return await self.client.post(
            path, json=body, headers={name.replace("_", "-"): value for name, value in headers.items()}
        )


def error_of(response: httpx2.Response) -> dict[str, Any]:
    """What it says went wrong, in OpenAI's shape."""
    body = response.json()
    assert list(body) == ["error"]
    error: dict[str, Any] = body["error"]
    assert list(error) == ["message", "type", "param", "code"]
    assert error["message"]
    return error


def sse_data(response: httpx2.Response) -> list[Any]:
    """The events of a stream: JSON, or the string that ends it."""
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.text.endswith("\n\n")
    events = [event for event in response.text[:-2].split("\n\n") if not event.startswith(":")]
    assert all(event.startswith("data: ") and "\n" not in event for event in events)
    data = [event.removeprefix("data: ") for event in events]
    return [item if item == "[DONE]" else json.loads(item) for item in data]


Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


def scope_of(path: str) -> dict[str, Any]:
    """A POST of JSON, for tests that speak ASGI themselves."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"test"), (b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }
