"""Requests and streamed chunks of the OpenAI API."""

from dataclasses import dataclass
from typing import Any

import orjson

from rankserve.server.engines.contract import Assignment
from rankserve.server.engines.openai.dialects import Dialect
from rankserve.server.engines.openai.errors import Broken

# Of an error's text that is repeated to the client and in logs.
_MOST_ERROR_CHARACTERS = 500
# Longer than any context: no count of tokens.
_MOST_TOKENS = 1 << 31
# How an answer ends that the server gave up.
_GIVEN_UP = ("abort", "cancelled", "error")


@dataclass(slots=True, frozen=True)
class Usage:
    """How many tokens there are, as the LLM counts them."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(slots=True, frozen=True)
class Chunk:
    """What one event of the stream brings. `finish_reason` is empty until the answer ends."""

    text: str = ""
    finish_reason: str = ""
    usage: Usage | None = None


def path_of(assignment: Assignment) -> str:
    """Where it is sent, below the base URL."""
    return "completions" if isinstance(assignment.prompt, str) else "chat/completions"


def can_continue(assignment: Assignment, dialect: Dialect) -> bool:
    """Whether such a server can go on with the answer from where it is."""
    return isinstance(assignment.prompt, str) or dialect.continues_chats


def body_of(
    assignment: Assignment, model: str, dialect: Dialect, *, priority: int | None, max_tokens: int
) -> bytes:
    """The request's body.

    Args:
        assignment: what to answer; what there is of the answer becomes part of the prompt.
        model: as the endpoint calls it.
        dialect: of the endpoint.
        priority: its place in the engine's own queue; None where it has none.
        max_tokens: that are left of the answer.
    """
    sampling = assignment.sampling
    stream_options: dict[str, Any] = {"include_usage": True}
    if dialect.counts_each_chunk:
        stream_options["continuous_usage_stats"] = True
    body: dict[str, Any] = {
        "model": model,
        "stream": True,
        "stream_options": stream_options,
        "max_tokens": max_tokens,
    }
    if isinstance(assignment.prompt, str):
        body["prompt"] = assignment.prompt + assignment.answer
    else:
        messages = [{"role": message.role, "content": message.content} for message in assignment.prompt]
        if assignment.answer:
            messages.append({"role": "assistant", "content": assignment.answer})
            body.update(dialect.continue_fields)
        body["messages"] = messages
    given = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "stop": list(sampling.stop) or None,
        "seed": sampling.seed,
        "priority": priority,
    }
    body.update({name: value for name, value in given.items() if value is not None})
    return orjson.dumps(body)


def read_chunk(data: str) -> Chunk:
    """One event's data; usage that cannot be counts as none.

    Raises:
        Broken: it is an error, the end of an answer that was given up, or nothing that the API knows.
    """
    try:
        event = orjson.loads(data)
        if event.get("error") is not None:
            # What it says may hold the prompt.
            raise Broken("an error in its stream")
        usage = _usage(event.get("usage"))
        if not event["choices"]:
            return Chunk(usage=usage)
        choice = event["choices"][0]
        text = choice["text"] if "text" in choice else choice["delta"].get("content")
        finish_reason = _string(choice.get("finish_reason"))
        if finish_reason in _GIVEN_UP:
            raise Broken("it gave the answer up")
        return Chunk(_string(text), finish_reason, usage)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise Broken(f"its stream is not of the OpenAI API ({type(error).__name__})") from None


def error_text(event: Any) -> str:
    """What an error response says, in any of the forms that servers have for it."""
    found = event
    for name in ("error", "message"):
        if isinstance(found, dict):
            found = found.get(name, found.get("detail", found))
    text = found if isinstance(found, str) else orjson.dumps(found).decode()
    return " ".join(text.split())[:_MOST_ERROR_CHARACTERS]


def _usage(usage: Any) -> Usage | None:
    if not isinstance(usage, dict):
        return None
    found = Usage(_count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens")))
    return None if min(found.prompt_tokens, found.completion_tokens) < 0 else found


def _count(value: Any) -> int:
    """Below 0 if it is none."""
    return value if type(value) is int and value < _MOST_TOKENS else -1


def _string(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError(value)
    return value
