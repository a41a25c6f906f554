"""From a client's message to a validated request. Every field is bounded here."""

import hashlib
import math
import re
from collections.abc import Mapping

from google.protobuf.message import DecodeError

from rankserve.server.chat_text import chat_ranking_text
from rankserve.server.engines.contract import ChatMessage, Prompt, Sampling
from rankserve.server.errors import InvalidRequest
from rankserve.server.requests import RequestSpec
from rankserve.v1.scheduler_pb2 import ChatMessages, InferenceRequest, SamplingParams

MAX_PRIORITY = 1000
_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_ROLES = ("system", "user", "assistant", "tool")
_MAX_METADATA_ENTRIES = 16
_MAX_METADATA_BYTES = 256
_MAX_TENANT_CHARACTERS = 128
_MAX_STOP_SEQUENCES = 16
_MAX_STOP_BYTES = 256
_MAX_CHAT_MESSAGES = 1024
# A week: longer deadlines are mistakes in the unit.
_MAX_DEADLINE_MS = 7 * 24 * 3600 * 1000
_DEFAULT = Sampling()


def to_spec(
    message: InferenceRequest, *, max_prompt_bytes: float, replay: bool, keep_body: bool = False
) -> RequestSpec:
    """Checks a request's fields.

    Args:
        message: as received.
        max_prompt_bytes: longest prompt, or chat in total, in UTF-8 bytes.
        replay: whether the server accepts `replay_*` fields.
        keep_body: whether the result holds the message as bytes too, for a journal.

    Raises:
        InvalidRequest: names the field and says what it must be.
    """
    if not _ID.fullmatch(message.id):
        raise InvalidRequest("id", "must be 1 to 128 characters of A-Z a-z 0-9 . _ : -")
    # A field of a message is made anew each time it is read.
    text = message.prompt
    size = _utf8_size(text)
    prompt: Prompt
    if message.HasField("chat"):
        size += _chat_size(message.chat)
        _check_size(size, max_prompt_bytes)
        prompt, ranking_text = _read_chat(message.chat)
    else:
        _check_size(size, max_prompt_bytes)
        prompt = ranking_text = text
        if not text or text.isspace():
            raise InvalidRequest("prompt", "must not be empty")
    max_tokens, sampling = (
        _read_sampling(message.sampling) if message.HasField("sampling") else (None, _DEFAULT)
    )
    priority, tenant, deadline_ms = message.priority, message.tenant, message.deadline_ms
    if abs(priority) > MAX_PRIORITY:
        raise InvalidRequest("priority", f"must be within -{MAX_PRIORITY} and {MAX_PRIORITY}")
    if len(tenant) > _MAX_TENANT_CHARACTERS:
        raise InvalidRequest("tenant", f"must be at most {_MAX_TENANT_CHARACTERS} characters")
    if deadline_ms > _MAX_DEADLINE_MS:
        raise InvalidRequest("deadline_ms", f"must be at most {_MAX_DEADLINE_MS} (a week)")
    metadata = message.metadata
    if metadata:
        _check_metadata(metadata)
    body = message.SerializeToString(deterministic=True)
    return RequestSpec(
        id=message.id,
        fingerprint=hashlib.sha256(body).digest(),
        size_bytes=size,
        prompt=prompt,
        ranking_text=ranking_text,
        model=message.model,
        max_tokens=max_tokens,
        sampling=sampling,
        priority=priority,
        tenant=tenant,
        deadline_ms=deadline_ms,
        detached=message.detached,
        result_only=message.result_only,
        metadata=dict(metadata) if metadata else {},
        replay_input_tokens=_replay_tokens(message, "replay_input_tokens", replay),
        replay_output_tokens=_replay_tokens(message, "replay_output_tokens", replay),
        body=body if keep_body else b"",
    )


def from_body(body: bytes) -> RequestSpec:
    """A request as a journal kept it. It was checked when it was accepted, by the limits of then.

    Raises:
        ValueError: it is no request.
    """
    try:
        return to_spec(InferenceRequest.FromString(body), max_prompt_bytes=math.inf, replay=True)
    except (DecodeError, InvalidRequest) as error:
        raise ValueError(str(error)) from error


def _read_chat(chat: ChatMessages) -> tuple[Prompt, str]:
    """The chat, and what is ranked: its last user turn and the number of turns before."""
    user_turns = [m.content for m in chat.messages if m.role == "user" and m.content.strip()]
    if not user_turns:
        raise InvalidRequest("chat.messages", "needs at least one user message that is not empty")
    for message in chat.messages:
        if message.role not in _ROLES:
            raise InvalidRequest("chat.messages", f"role must be one of {', '.join(_ROLES)}")
    prompt = tuple(ChatMessage(m.role, m.content) for m in chat.messages)
    return prompt, chat_ranking_text(user_turns)


def _read_sampling(sampling: SamplingParams) -> tuple[int | None, Sampling]:
    """The longest answer asked for, if any, and what the engine is told."""
    max_tokens = sampling.max_tokens if sampling.HasField("max_tokens") else None
    if max_tokens is not None and max_tokens < 1:
        raise InvalidRequest("sampling.max_tokens", "must be at least 1; leave it out for the default")
    temperature = sampling.temperature if sampling.HasField("temperature") else None
    if temperature is not None and not 0 <= temperature <= 10:
        raise InvalidRequest("sampling.temperature", "must be between 0 and 10")
    top_p = sampling.top_p if sampling.HasField("top_p") else None
    if top_p is not None and not (math.isfinite(top_p) and 0 < top_p <= 1):
        raise InvalidRequest("sampling.top_p", "must be above 0 and at most 1")
    stop = tuple(sampling.stop)
    if len(stop) > _MAX_STOP_SEQUENCES:
        raise InvalidRequest("sampling.stop", f"must be at most {_MAX_STOP_SEQUENCES} sequences")
    if any(_utf8_size(text) > _MAX_STOP_BYTES for text in stop):
        raise InvalidRequest("sampling.stop", f"sequences must be at most {_MAX_STOP_BYTES} bytes")
    seed = sampling.seed if sampling.HasField("seed") else None
    if temperature is None and top_p is None and seed is None and not stop:
        return max_tokens, _DEFAULT
    return max_tokens, Sampling(temperature=temperature, top_p=top_p, stop=stop, seed=seed)


def _check_metadata(metadata: Mapping[str, str]) -> None:
    if len(metadata) > _MAX_METADATA_ENTRIES:
        raise InvalidRequest("metadata", f"must be at most {_MAX_METADATA_ENTRIES} entries")
    for key, value in metadata.items():
        if _utf8_size(key) + _utf8_size(value) > _MAX_METADATA_BYTES:
            raise InvalidRequest("metadata", f"entries must be at most {_MAX_METADATA_BYTES} bytes")


def _utf8_size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _chat_size(chat: ChatMessages) -> int:
    if len(chat.messages) > _MAX_CHAT_MESSAGES:
        raise InvalidRequest("chat.messages", f"must be at most {_MAX_CHAT_MESSAGES}")
    return sum(_utf8_size(message.role) + _utf8_size(message.content) for message in chat.messages)


def _check_size(size: int, max_prompt_bytes: float) -> None:
    if size > max_prompt_bytes:
        raise InvalidRequest("prompt", f"is {size} bytes long, the limit is {max_prompt_bytes}")


def _replay_tokens(message: InferenceRequest, field: str, allowed: bool) -> int | None:
    if not message.HasField(field):  # type: ignore[arg-type]
        return None
    if not allowed:
        raise InvalidRequest(field, "replay is not enabled on this server (start it with --replay)")
    tokens: int = getattr(message, field)
    if tokens < 1:
        raise InvalidRequest(field, "must be at least 1")
    return tokens
