"""The JSON of answers: text completions and chat completions, whole and in chunks."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from rankserve.server.events import Finished

Json = dict[str, Any]


@dataclass(slots=True, frozen=True)
class Heading:
    """What is the same in every chunk of an answer. `created` is Unix time in seconds."""

    id: str
    created: int
    model: str


class AnswerFormat(ABC):
    """One of the two kinds of answers."""

    prefix: ClassVar[str]
    whole_object: ClassVar[str]
    chunk_object: ClassVar[str]

    def whole(self, heading: Heading, finished: Finished) -> Json:
        choice = self._whole_choice(finished.text, finished.finish_reason)
        return _object(heading, self.whole_object, [choice]) | {"usage": _usage(finished)}

    def opening(self, heading: Heading) -> list[Json]:
        """Chunks before the first text."""
        return []

    def piece(self, heading: Heading, text: str) -> Json:
        return self._chunk(heading, text, None)

    def last(self, heading: Heading, finish_reason: str) -> Json:
        return self._chunk(heading, "", finish_reason)

    def usage(self, heading: Heading, finished: Finished) -> Json:
        """The chunk after the last one, for clients that ask for usage."""
        return _object(heading, self.chunk_object, []) | {"usage": _usage(finished)}

    @abstractmethod
    def _whole_choice(self, text: str, finish_reason: str) -> Json: ...

    @abstractmethod
    def _chunk(self, heading: Heading, text: str, finish_reason: str | None) -> Json: ...


class TextFormat(AnswerFormat):
    """Of /v1/completions."""

    prefix = "cmpl-"
    whole_object = "text_completion"
    chunk_object = "text_completion"

    def _whole_choice(self, text: str, finish_reason: str | None) -> Json:
        return {"index": 0, "text": text, "logprobs": None, "finish_reason": finish_reason}

    def _chunk(self, heading: Heading, text: str, finish_reason: str | None) -> Json:
        return _object(heading, self.chunk_object, [self._whole_choice(text, finish_reason)])


class ChatFormat(AnswerFormat):
    """Of /v1/chat/completions."""

    prefix = "chatcmpl-"
    whole_object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def opening(self, heading: Heading) -> list[Json]:
        return [self._delta(heading, {"role": "assistant", "content": ""}, None)]

    def _whole_choice(self, text: str, finish_reason: str) -> Json:
        message = {"role": "assistant", "content": text, "refusal": None}
        return {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}

    def _chunk(self, heading: Heading, text: str, finish_reason: str | None) -> Json:
        return self._delta(heading, {"content": text} if text else {}, finish_reason)

    def _delta(self, heading: Heading, delta: Json, finish_reason: str | None) -> Json:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return _object(heading, self.chunk_object, [choice])


def _object(heading: Heading, kind: str, choices: list[Json]) -> Json:
    return {
        "id": heading.id,
        "object": kind,
        "created": heading.created,
        "model": heading.model,
        "choices": choices,
    }


def _usage(finished: Finished) -> Json:
    return {
        "prompt_tokens": finished.input_tokens,
        "completion_tokens": finished.output_tokens,
        "total_tokens": finished.input_tokens + finished.output_tokens,
    }
