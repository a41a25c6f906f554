"""What clients send: OpenAI's API, with RankServe's extras. Types only; `rpc.validation` has the bounds."""

from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from rankserve.server.errors import InvalidRequest

# What OpenAI's API promises where /v1/completions gives no `max_tokens`.
_COMPLETION_MAX_TOKENS = 16
# Enough for every value that `rpc.validation` lets pass, little enough for the message it reads.
_Count = Annotated[int, Field(ge=0, lt=1 << 32)]
_Integer = Annotated[int, Field(ge=-(1 << 31), lt=1 << 31)]


def _problem(text: str) -> PydanticCustomError:
    return PydanticCustomError("unsupported", text)


def _one_prompt(value: object) -> object:
    if not isinstance(value, list):
        return value
    if len(value) == 1 and isinstance(value[0], str):
        return value[0]
    if value and all(isinstance(prompt, str) for prompt in value):
        raise _problem("must be one prompt; send the others in requests of their own")
    raise _problem("must be text; token ids are not supported")


def _stop_sequences(value: object) -> object:
    if value is None:
        return []
    return [value] if isinstance(value, str) else value


def _text(value: object) -> object:
    """The content of a message: a string, or text parts, joined by newlines as vLLM does."""
    if value is None:
        return ""
    if not isinstance(value, list):
        return value
    texts = []
    for part in value:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise _problem(
                "must be a string or parts of type text; images, audio and files are not supported"
            )
        texts.append(part["text"])
    return "\n".join(texts)


def _nothing(value: object) -> None:
    if value:
        raise _problem("is not supported by this server")


_Nothing = Annotated[None, BeforeValidator(_nothing)]


class StreamOptions(BaseModel):
    model_config = ConfigDict(strict=True)

    include_usage: bool | None = None
    continuous_usage_stats: _Nothing = None


class Message(BaseModel):
    """A turn of a chat."""

    model_config = ConfigDict(strict=True)

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[str, BeforeValidator(_text)] = ""
    tool_calls: _Nothing = None
    function_call: _Nothing = None
    audio: _Nothing = None


class Body(BaseModel):
    """What both kinds of request have in common."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    model: str | None = None
    max_tokens: _Count | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: Annotated[list[str], BeforeValidator(_stop_sequences)] = []
    seed: Annotated[int, Field(ge=-(1 << 63), lt=1 << 64)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    metadata: dict[str, str] | None = None

    # RankServe's own
    request_id: str | None = None
    priority: _Integer | None = None
    tenant: str | None = None
    deadline_ms: Annotated[int, Field(ge=0, lt=1 << 63)] | None = None
    detached: bool | None = None

    @model_validator(mode="after")
    def _stream_options_belong_to_streams(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise InvalidRequest("stream_options", "is only allowed when stream is true")
        return self

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)


class CompletionBody(Body):
    """Of POST /v1/completions."""

    prompt: Annotated[str, BeforeValidator(_one_prompt)]
    max_tokens: _Count | None = _COMPLETION_MAX_TOKENS


class ChatBody(Body):
    """Of POST /v1/chat/completions."""

    messages: list[Message]
    max_completion_tokens: _Count | None = None

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if None not in (self.max_tokens, self.max_completion_tokens) and (
            self.max_tokens != self.max_completion_tokens
        ):
            raise InvalidRequest("max_tokens", "differs from max_completion_tokens; give one of them")
        return self


_AnyBody = TypeVar("_AnyBody", bound=Body)


def parse_body(kind: type[_AnyBody], fields: dict[str, Any]) -> _AnyBody:
    """Raises InvalidRequest, which names the first parameter of a wrong type."""
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        # Not its own text: that quotes what the client sent.
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        problem = "is required" if first["type"] == "missing" else first["msg"].removeprefix("Input ")
        raise InvalidRequest(_path(first["loc"]), problem) from None


def _path(location: tuple[int | str, ...]) -> str:
    """Such as ``messages[0].content``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
