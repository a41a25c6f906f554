"""The JSON of answers: text completions and chat completions, whole and in chunks."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from rankserve.server.engines.fake.generation import FinishReason

Json = dict[str, Any]


@dataclass(slots=True, frozen=True)
class Heading:
    """What is the same in every chunk of an answer. `created` is Unix time in seconds."""

    id: str
    created: int
    model: str


@dataclass(slots=True, frozen=True)
class Piece:
    """Text with, at the end, why it ends there."""

    text: str
    finish_reason: FinishReason | None = None
    stop_reason: str | None = None


class AnswerFormat(ABC):
    """One of the two kinds of answers."""

    prefix: ClassVar[str]
    whole_object: ClassVar[str]
    chunk_object: ClassVar[str]

    def whole(self, heading: Heading, piece: Piece, usage: Json | None) -> Json:
        choice = {"index": 0, **self._whole(piece.text), "logprobs": None, **_ending(piece)}
        return {**_object(heading, self.whole_object, [choice]), "usage": usage}

    def opening(self, heading: Heading) -> list[Json]:
        """Chunks before the first text."""
        return []

    def chunk(self, heading: Heading, piece: Piece) -> Json:
        choice = {
            "index": 0,
            **self._part(piece.text),
            "logprobs": None,
            "finish_reason": piece.finish_reason,
        }
        if piece.finish_reason is not None:
            choice["stop_reason"] = piece.stop_reason
        return _object(heading, self.chunk_object, [choice])

    def usage(self, heading: Heading, usage: Json) -> Json:
        """The chunk after the last one, for clients that ask for usage."""
        return {**_object(heading, self.chunk_object, []), "usage": usage}

    @abstractmethod
    def _whole(self, text: str) -> Json: ...

    @abstractmethod
    def _part(self, text: str) -> Json: ...


class TextFormat(AnswerFormat):
    """Of /v1/completions."""

    prefix = "cmpl-"
    whole_object = "text_completion"
    chunk_object = "text_completion"

    def _whole(self, text: str) -> Json:
        return {"text": text}

    def _part(self, text: str) -> Json:
        return {"text": text}


class ChatFormat(AnswerFormat):
    """Of /v1/chat/completions."""

    prefix = "chatcmpl-"
    whole_object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def opening(self, heading: Heading) -> list[Json]:
        delta = {"role": "assistant", "content": ""}
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
        return [_object(heading, self.chunk_object, [choice])]

    def _whole(self, text: str) -> Json:
        return {"message": {"role": "assistant", "content": text, "refusal": None, "tool_calls": []}}

    def _part(self, text: str) -> Json:
        return {"delta": {"content": text}}


def usage(prompt_tokens: int, completion_tokens: int) -> Json:
    return {
        "prompt_tokens": prompt_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "completion_tokens": completion_tokens,
    }


def _ending(piece: Piece) -> Json:
    return {"finish_reason": piece.finish_reason, "stop_reason": piece.stop_reason}


def _object(heading: Heading, kind: str, choices: list[Json]) -> Json:
    return {
        "id": heading.id,
        "object": kind,
        "created": heading.created,
        "model": heading.model,
        "choices": choices,
    }
