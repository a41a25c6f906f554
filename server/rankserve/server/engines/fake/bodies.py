"""What clients send. As in vLLM, fields that are not known are let pass."""

import json
from abc import abstractmethod
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from starlette.requests import Request

from rankserve.server.engines.fake.errors import EngineError
from rankserve.server.engines.fake.faults import FaultKind
from rankserve.server.engines.fake.prompts import render_chat

# What OpenAI's API promises where /v1/completions gives no `max_tokens`.
_COMPLETION_MAX_TOKENS = 16
_Integer64 = Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)]
# Fields that would change the answer, with the values that do not.
_UNSUPPORTED: dict[str, tuple[object, ...]] = {
    "n": (None, 1),
    "best_of": (None, 1),
    "echo": (None, False),
    "logprobs": (None, False),
    "prompt_logprobs": (None,),
    "use_beam_search": (None, False),
    "prompt_embeds": (None,),
}


def _stop_sequences(value: object) -> object:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else value


def _one_prompt(value: object) -> object:
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _text(value: object) -> object:
    """The content of a message: a string, or text parts, joined by newlines as vLLM does."""
    if value is None:
        return ""
    if isinstance(value, list) and all(isinstance(part, dict) for part in value):
        return "\n".join(str(part.get("text", "")) for part in value)
    return value


class _Lenient(BaseModel):
    model_config = ConfigDict(extra="allow")


class StreamOptions(_Lenient):
    include_usage: bool | None = False
    continuous_usage_stats: bool | None = False


class Message(_Lenient):
    role: str
    content: Annotated[str, BeforeValidator(_text)] = ""


class AnswerBody(_Lenient):
    """What both kinds of request have in common."""

    model: str | None = None
    max_tokens: int | None = None
    seed: _Integer64 | None = None
    temperature: float | None = None
    stop: Annotated[tuple[str, ...], BeforeValidator(_stop_sequences)] = ()
    include_stop_str_in_output: bool = False
    min_tokens: int = 0
    ignore_eos: bool = False
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    priority: _Integer64 = 0
    request_id: str | None = None

    @property
    @abstractmethod
    def text(self) -> str:
        """All before the answer."""

    @property
    def token_limit(self) -> int | None:
        return self.max_tokens

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def continuous_usage(self) -> bool:
        return (
            self.include_usage
            and self.stream_options is not None
            and bool(self.stream_options.continuous_usage_stats)
        )

    def check(self) -> None:
        """Raises EngineError for what the types do not say."""
        for name, harmless in _UNSUPPORTED.items():
            value = getattr(self, name, None)
            if not any(type(value) is type(same) and value == same for same in harmless):
                raise EngineError(400, f"the fake engine does not support {name}", param=name)
        if self.stream_options is not None and not self.stream:
            raise EngineError(400, "stream_options needs stream", param="stream_options")
        if self.temperature is not None and self.temperature < 0:
            raise EngineError(400, "temperature must not be negative", param="temperature")
        if not all(self.stop):
            raise EngineError(400, "stop must not be empty", param="stop")
        if self.token_limit is not None and self.token_limit < 1:
            raise EngineError(
                400, f"max_tokens must be at least 1, got {self.token_limit}", param="max_tokens"
            )
        if self.min_tokens < 0:
            raise EngineError(400, "min_tokens must not be negative", param="min_tokens")


class CompletionBody(AnswerBody):
    """Of POST /v1/completions."""

    prompt: Annotated[str, BeforeValidator(_one_prompt)]

    @property
    def text(self) -> str:
        return self.prompt

    @property
    def token_limit(self) -> int | None:
        return _COMPLETION_MAX_TOKENS if self.max_tokens is None else self.max_tokens

    def check(self) -> None:
        super().check()
        if not self.prompt:
            raise EngineError(400, "prompt must not be empty", param="prompt")


class _Chat(_Lenient):
    messages: list[Message]
    add_generation_prompt: bool = True
    continue_final_message: bool = False

    @model_validator(mode="before")
    @classmethod
    def _one_way_to_end(cls, fields: Any) -> Any:
        if (
            isinstance(fields, dict)
            and fields.get("continue_final_message")
            and fields.get("add_generation_prompt")
        ):
            raise EngineError(400, "continue_final_message and add_generation_prompt exclude each other")
        return fields

    @property
    def text(self) -> str:
        return render_chat(
            [(message.role, message.content) for message in self.messages],
            add_generation_prompt=self.add_generation_prompt,
            continue_final_message=self.continue_final_message,
        )


class ChatBody(_Chat, AnswerBody):
    """Of POST /v1/chat/completions."""

    max_completion_tokens: int | None = None

    @property
    def token_limit(self) -> int | None:
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    def check(self) -> None:
        super().check()
        if not self.messages:
            raise EngineError(400, "messages must not be empty", param="messages")


class TokenizeBody(_Chat):
    """Of POST /tokenize: a prompt, or messages."""

    model: str | None = None
    messages: list[Message] = []
    prompt: str | None = None
    return_token_strs: bool | None = False

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.prompt is None and not self.messages:
            raise EngineError(400, "prompt or messages must be there", param="prompt")
        return self

    @property
    def text(self) -> str:
        return super().text if self.prompt is None else self.prompt


class FaultBody(BaseModel):
    """One kind of fault; what is None is as in `Faults.set`."""

    model_config = ConfigDict(extra="forbid")

    probability: float = 0.0
    next_requests: int = 0
    after_tokens: int | None = None
    factor: float | None = None
    status: int = 503
    retry_after_s: int = 1


class FaultsBody(BaseModel):
    """Of POST /faults. Kinds that it does not name stay as they are."""

    model_config = ConfigDict(extra="forbid")

    faults: dict[FaultKind, FaultBody] = {}
    healthy: bool | None = None


_AnyBody = TypeVar("_AnyBody", bound=BaseModel)


async def read_fields(request: Request) -> dict[str, Any]:
    """The JSON object of a request.

    Raises:
        EngineError: it is none.
        ClientDisconnect: the client went before it had sent all.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise EngineError(400, "the content type must be application/json", kind="Bad Request")
    try:
        fields = json.loads(await request.body())
    except (ValueError, RecursionError):
        raise EngineError(400, "the body is not JSON", param="body", kind="Bad Request") from None
    if not isinstance(fields, dict):
        raise EngineError(400, "the body must be a JSON object", param="body", kind="Bad Request")
    return fields


def parse_body(kind: type[_AnyBody], fields: object) -> _AnyBody:
    """Raises EngineError, which names the first field of a wrong type."""
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in ("body", *first["loc"]))
        raise EngineError(400, f"{place}: {first['msg']}", param=place, kind="Bad Request") from None
