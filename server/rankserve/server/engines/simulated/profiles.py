"""Named parameters of simulated LLMs, read from ``profiles.toml`` beside this file."""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


class UnknownProfileError(ValueError):
    """No profile of that name."""


@dataclass(slots=True, frozen=True)
class Profile:
    """A simulated LLM.

    Attributes:
        name: its name in ``profiles.toml``.
        base_ms: time of an empty step.
        per_prefill_token_ms: added by each prefilled token.
        per_decode_sequence_ms: added by each decoding sequence.
        per_context_token_ms: added by each token that a decoding sequence attends to.
        kv_blocks: KV blocks in total.
        max_model_len: longest prompt plus answer in tokens.
        max_sequences: sequences in one step.
        max_batched_tokens: tokens in one step.
        block_size: tokens a KV block holds.
        watermark: share of the KV blocks that admission leaves for running sequences to grow into.
        prefix_caching: whether a preempted request finds what is left of its KV blocks when it resumes; else
            it recomputes its whole prefix.
        shared_prefix_tokens: leading tokens that all prompts share (a chat template), held and computed once;
            a multiple of `block_size`.
        swap_ms_per_token: time to move one token's KV between GPU and host memory.
    """

    name: str
    base_ms: float
    per_prefill_token_ms: float
    per_decode_sequence_ms: float
    per_context_token_ms: float
    kv_blocks: int
    max_model_len: int
    max_sequences: int
    max_batched_tokens: int
    block_size: int = 16
    watermark: float = 0.01
    prefix_caching: bool = False
    shared_prefix_tokens: int = 0
    swap_ms_per_token: float = 0.0

    def __post_init__(self) -> None:
        if self.base_ms <= 0:
            raise ValueError(f"profile {self.name}: base_ms must be more than 0")
        if self.max_sequences < 1 or self.max_batched_tokens < self.max_sequences:
            raise ValueError(
                f"profile {self.name}: needs 1 <= max_sequences ({self.max_sequences})"
                f" <= max_batched_tokens ({self.max_batched_tokens})"
            )
        if self.kv_blocks * self.block_size < self.max_model_len:
            raise ValueError(
                f"profile {self.name}: {self.kv_blocks} KV blocks of {self.block_size} tokens cannot hold one"
                f" sequence of max_model_len {self.max_model_len}"
            )

    def step_ms(self, *, prefill_tokens: int, decode_sequences: int, context_tokens: int) -> float:
        """How long one step takes, in simulated ms."""
        return (
            self.base_ms
            + self.per_prefill_token_ms * prefill_tokens
            + self.per_decode_sequence_ms * decode_sequences
            + self.per_context_token_ms * context_tokens
        )


@cache
def profiles() -> dict[str, Profile]:
    """All built-in profiles by name."""
    text = files("rankserve.server.engines.simulated").joinpath("profiles.toml").read_text(encoding="utf-8")
    return {name: Profile(name=name, **values) for name, values in tomllib.loads(text).items()}


def find_profile(name: str) -> Profile:
    """Raises UnknownProfileError, listing the names there are."""
    if name not in profiles():
        raise UnknownProfileError(f"unknown profile {name!r}; there are: {', '.join(sorted(profiles()))}")
    return profiles()[name]
