"""The keyword arguments of ``generate`` and ``complete``, and the Request they make."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypedDict

from rankserve.client._types import ChatMessage, Request

Input = str | Sequence[ChatMessage] | Request


class RequestOptions(TypedDict, total=False):
    """Any field of Request but its prompt and messages; see there for what each means."""

    id: str
    model: str
    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    stop: tuple[str, ...]
    seed: int | None
    priority: int
    tenant: str
    deadline_ms: int
    detached: bool
    result_only: bool
    metadata: Mapping[str, str]
    replay_output_tokens: int | None
    replay_input_tokens: int | None


def make_request(source: Input, options: RequestOptions) -> Request:
    """A request from a prompt, the messages of a chat, or another request, changed by the options."""
    if isinstance(source, Request):
        return replace(source, **options)
    if isinstance(source, str):
        return Request(prompt=source, **options)
    return Request(messages=tuple(source), **options)
