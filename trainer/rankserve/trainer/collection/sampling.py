"""How answers are drawn: what all samples of a run have in common, and the body of each request."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from rankserve.trainer.collection.errors import CollectionError
from rankserve.trainer.collection.prompts import Prompt

# What options say, or what one length an answer depends on.
_RESERVED = frozenset(
    ("model", "messages", "prompt", "n", "best_of", "stream", "temperature", "top_p", "seed")
)
# What endpoints call the cap, which decides what counts as censored.
_CAPS = ("max_tokens", "max_completion_tokens")


class Api(StrEnum):
    """Which of the endpoint's two ways to answer; chat applies the model's template."""

    CHAT = "chat"
    COMPLETIONS = "completions"

    @property
    def path(self) -> str:
        return "chat/completions" if self is Api.CHAT else "completions"


@dataclass(slots=True, frozen=True)
class Sampling:
    """Settings of a run's requests.

    Attributes:
        model: as the endpoint names it.
        max_tokens: the cap on an answer; one that reaches it is censored.
        temperature: of the sampling; at 0 all samples of a prompt are alike.
        top_p: None leaves it to the endpoint.
        api: chat or plain completions.
        extra: further fields of each request, such as ``{"chat_template_kwargs": ...}``; None removes one.
        seed: sends a seed with each request, another for each sample; None sends none.

    Raises:
        CollectionError: ``extra`` holds what an option says, or another cap.
    """

    model: str
    max_tokens: int
    temperature: float = 1.0
    top_p: float | None = None
    api: Api = Api.CHAT
    extra: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None

    def __post_init__(self) -> None:
        if reserved := sorted(_RESERVED & self.extra.keys()):
            raise CollectionError(
                f"--extra must not hold {', '.join(reserved)}: use the option, and one answer a request"
            )
        for name in _CAPS:
            if self.extra.get(name) not in (None, self.max_tokens):
                raise CollectionError(
                    f"--extra holds {name} {self.extra[name]!r:.40}, and the cap is {self.max_tokens}: set "
                    f"--max-tokens, which the lengths are recorded with"
                )

    def comparable(self) -> dict[str, Any]:
        """What two samples must share for their lengths to be of one distribution."""
        return {
            "model": self.model,
            "api": self.api.value,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_tokens": self.max_tokens,
            "extra": dict(self.extra),
        }

    def body(self, prompt: Prompt, sample: int) -> dict[str, Any]:
        """The request for one sample.

        One answer each: with ``n`` above 1, ``usage.completion_tokens`` is the sum over all answers, and the
        length of each is lost.
        """
        asked: dict[str, Any] = (
            {"messages": [message._asdict() for message in prompt.messages]}
            if self.api is Api.CHAT
            else {"prompt": prompt.text}
        )
        body = {
            "model": self.model,
            **asked,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "seed": None if self.seed is None else sample_seed(self.seed, prompt.id, sample),
            "n": 1,
            "stream": False,
            **self.extra,
        }
        return {name: value for name, value in body.items() if value is not None}


def sample_seed(seed: int, prompt_id: str, sample: int) -> int:
    """A seed from 0 to 2**31 - 1 that each sample of each prompt has for itself, the same after a resume."""
    digest = hashlib.blake2b(f"{seed}/{sample}/{prompt_id}".encode(), digest_size=4).digest()
    return int.from_bytes(digest) >> 1
