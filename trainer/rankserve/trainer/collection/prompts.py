"""One prompt to send: a text, or a conversation up to its last user turn."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rankserve.records.jsonl import RecordError
from rankserve.records.prompts import parse_id, prompt_id

# Who speaks in ShareGPT's files, which write "from" and "value".
_SHAREGPT_ROLES = {"human": "user", "gpt": "assistant"}
_MOST_FIELDS_NAMED = 12


class Message(NamedTuple):
    """A turn of a conversation."""

    role: str
    content: str


@dataclass(slots=True, frozen=True)
class Prompt:
    """What is sent, and what a ranker will see of it.

    Attributes:
        id: unique in a run; stated by the source, or a hash of the conversation.
        messages: what is sent; the last is a user's.
    """

    id: str
    messages: tuple[Message, ...]

    @property
    def text(self) -> str:
        """The last user turn, which is what requests are ranked by."""
        return self.messages[-1].content

    @property
    def digest(self) -> str:
        """Tells this conversation from another under the same id."""
        return hashlib.sha256(json.dumps(self.messages).encode()).hexdigest()[:16]

    @property
    def size_bytes(self) -> int:
        """UTF-8 bytes of all messages."""
        return sum(len(message.content.encode()) for message in self.messages)


@dataclass(slots=True, frozen=True)
class PromptSet:
    """The prompts of a source, in its order; ``repeats`` more stood in it without an id of their own."""

    prompts: tuple[Prompt, ...]
    repeats: int


def prompt_set(
    source: Path | str,
    rows: Iterable[tuple[int, dict[str, Any]]],
    *,
    field: str = "prompt",
    id_field: str = "id",
    limit: int | None = None,
) -> PromptSet:
    """The prompts of a source's rows. One that comes again without an id is taken once.

    Args:
        source: its name, for messages.
        rows: (line or row number from 1, fields).
        field: holds a text, or a conversation: a list of ``{"role", "content"}`` or ``{"from", "value"}``.
        id_field: holds the id, which a row need not have.
        limit: stop after this many prompts.

    Raises:
        RecordError: a row cannot be used, states an id that another has, or there is no row; names the line.
    """
    lines: dict[str, int] = {}
    prompts: list[Prompt] = []
    repeats = 0
    for number, prompt, stated in _parsed(source, rows, field, id_field):
        if len(prompts) == limit:
            break
        if prompt.id not in lines:
            lines[prompt.id] = number
            prompts.append(prompt)
        elif stated:
            problem = (
                f"id {prompt.id!r:.60} is that of line {lines[prompt.id]} too: give each prompt its own, or "
                f'name another field than "{id_field}" with --id-field (ids are made up where it is missing)'
            )
            raise RecordError(source, number, problem)
        else:
            repeats += 1
    if not prompts:
        raise RecordError(source, 0, "holds no prompt: nothing to collect")
    return PromptSet(tuple(prompts), repeats)


def _parsed(
    source: Path | str, rows: Iterable[tuple[int, dict[str, Any]]], field: str, id_field: str
) -> Iterator[tuple[int, Prompt, bool]]:
    """(line, prompt, whether its id was stated) of each row."""
    for number, row in rows:
        try:
            messages = _messages(row, field)
            stated = _text(f'"{id_field}"', parse_id({"id": row.get(id_field)}))
        except ValueError as error:
            raise RecordError(source, number, str(error)) from None
        yield number, Prompt(stated or _made_up_id(messages), messages), bool(stated)


def _made_up_id(messages: tuple[Message, ...]) -> str:
    # A text alone has the id that it has in every other file of prompts.
    return prompt_id(messages[0].content if len(messages) == 1 else json.dumps(messages))


def _messages(row: dict[str, Any], field: str) -> tuple[Message, ...]:
    value = row.get(field)
    if value is None:
        known = ", ".join(sorted(map(str, row))[:_MOST_FIELDS_NAMED]) or "nothing"
        raise ValueError(f'has no "{field}", only {known}: name the field of the prompt with --field')
    if isinstance(value, str):
        if not value.strip():
            raise ValueError(f'"{field}" is empty: remove the record')
        return (Message("user", _text(f'"{field}"', value)),)
    if not isinstance(value, list):
        raise ValueError(f'"{field}" must be a text or a list of messages, got {type(value).__name__}')
    messages = [_message(field, item) for item in value]
    while messages and messages[-1].role != "user":
        messages.pop()
    if not messages or not messages[-1].content.strip():
        raise ValueError(f'"{field}" has no user turn to answer: remove the record')
    return tuple(messages)


def _message(field: str, item: object) -> Message:
    if isinstance(item, dict):
        role, content = item.get("role", item.get("from")), item.get("content", item.get("value"))
        if isinstance(role, str) and isinstance(content, str):
            return Message(_text("a role", _SHAREGPT_ROLES.get(role, role)), _text(f'"{field}"', content))
    raise ValueError(f'"{field}" must list messages as {{"role": text, "content": text}}')


def _text(what: str, value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{what} must be text: it holds half of a surrogate pair") from None
    return value
