"""What a simulated LLM is: its step times, KV cache and limits."""

import math
from dataclasses import dataclass

from rankserve.server.engines.simulated.step_time import StepTimes, step_ms


@dataclass(slots=True, frozen=True, eq=False)
class Profile:
    """A simulated LLM.

    Attributes:
        name: its name in ``profiles.toml``, or its file's.
        step_times: how long its steps take.
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
        source: where the numbers come from.
    """

    name: str
    step_times: StepTimes
    kv_blocks: int
    max_model_len: int
    max_sequences: int
    max_batched_tokens: int
    block_size: int = 16
    watermark: float = 0.01
    prefix_caching: bool = False
    shared_prefix_tokens: int = 0
    swap_ms_per_token: float = 0.0
    source: str = ""

    def __post_init__(self) -> None:
        if self.kv_blocks < 1 or self.block_size < 1 or self.max_model_len < 1:
            raise ValueError(
                f"profile {self.name}: kv_blocks ({self.kv_blocks}), block_size ({self.block_size}) and"
                f" max_model_len ({self.max_model_len}) must be at least 1"
            )
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
        if not 0 <= self.watermark < 1:
            raise ValueError(
                f"profile {self.name}: watermark must be from 0 to below 1, got {self.watermark}"
            )
        shared_blocks, rest = divmod(self.shared_prefix_tokens, self.block_size)
        if rest or not 0 <= shared_blocks < self.kv_blocks:
            raise ValueError(
                f"profile {self.name}: shared_prefix_tokens ({self.shared_prefix_tokens}) must be whole KV"
                f" blocks of {self.block_size} tokens, fewer than the {self.kv_blocks} there are"
            )
        if not 0 <= self.swap_ms_per_token < math.inf:
            raise ValueError(
                f"profile {self.name}: swap_ms_per_token must be at least 0, got {self.swap_ms_per_token}"
            )
        # Beyond its last points a table goes on as a line, which may lead below zero.
        most_context = min(self.max_sequences * self.max_model_len, self.kv_blocks * self.block_size)
        for prefill, sequences, context in (
            (0, 1, 1),
            (0, self.max_sequences, most_context),
            (self.max_batched_tokens, 0, 0),
            (self.max_batched_tokens - self.max_sequences, self.max_sequences, most_context),
        ):
            # Prompts of one token each take the least.
            step_ms = self.step_ms(
                prefill_tokens=prefill,
                prefill_squares=prefill,
                decode_sequences=sequences,
                context_tokens=context,
            )
            if not 0 < step_ms < math.inf:
                raise ValueError(
                    f"profile {self.name}: a step must take more than 0 ms, but one of {prefill} tokens"
                    f" prefilled and {sequences} sequences with {context} tokens in all takes {step_ms:g} ms"
                )

    def step_ms(
        self,
        *,
        prefill_tokens: int,
        decode_sequences: int,
        context_tokens: int,
        prefill_history_tokens: int = 0,
        prefill_squares: int | None = None,
        longest_context: int = 0,
        sampled_sequences: int | None = None,
    ) -> float:
        """How long one step takes, in simulated ms. For the arguments see `step_time.step_ms`.

        What it prefills is one chunk unless `prefill_squares` says otherwise.
        """
        sampled = decode_sequences if sampled_sequences is None else sampled_sequences
        squares = prefill_tokens**2 if prefill_squares is None else prefill_squares
        return step_ms(
            self.step_times,
            prefill_tokens,
            prefill_history_tokens,
            squares,
            decode_sequences,
            context_tokens,
            longest_context,
            sampled,
        )

    def restart_steps_per_token(self, *, swaps: bool) -> float:
        """What bringing back one token's KV costs a full batch, in its decode steps.

        Args:
            swaps: whether the KV moved to the host, so that it travels twice; else it is computed again.
        """
        batch, context, chunk = self.max_sequences, 512 * self.max_sequences, 512
        step_ms = self.step_ms(prefill_tokens=0, decode_sequences=batch, context_tokens=context)
        if swaps:
            return 2 * self.swap_ms_per_token / step_ms
        with_chunk_ms = self.step_ms(
            prefill_tokens=chunk, decode_sequences=batch, context_tokens=context, longest_context=512
        )
        return (with_chunk_ms - step_ms) / chunk / step_ms
