"""The simulated LLM's batch, one step at a time and without a clock.

Continuous batching as vLLM does it: each step, every prefilled sequence decodes one token, and what is left
of the step's token budget prefills the others in chunks. The step that completes a prefill produces the
sequence's next token. A preempted sequence loses its KV blocks and recomputes its whole prefix.
"""

from collections.abc import Callable
from dataclasses import dataclass

from rankserve.server.engines.contract import TokensProduced
from rankserve.server.engines.simulated.answers import token_text
from rankserve.server.engines.simulated.kv_blocks import KvBlockPool
from rankserve.server.engines.simulated.profiles import Profile
from rankserve.server.scheduling.budget import EngineRoom
from rankserve.server.scheduling.request import Request

# Share of the KV cache that admission leaves for running sequences to grow into, as in vLLM.
WATERMARK = 0.01


@dataclass(slots=True, eq=False)
class _Sequence:
    request: Request
    output_length: int
    to_prefill: int


@dataclass(slots=True, frozen=True)
class Step:
    """What one step does, and how long it takes in simulated ms."""

    decoding: tuple[_Sequence, ...]
    prefilling: tuple[tuple[_Sequence, int], ...]
    duration_ms: float


class SimulatedBatch:
    """The sequences an LLM works on, and their KV blocks."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.kv = KvBlockPool(profile.kv_blocks, profile.block_size)
        self._sequences: dict[str, _Sequence] = {}

    def __len__(self) -> int:
        return len(self._sequences)

    def room(self) -> EngineRoom:
        """What the next step has room for."""
        return EngineRoom(
            sequences=self.profile.max_sequences - len(self._sequences),
            batched_tokens=self.profile.max_batched_tokens
            - sum(sequence.to_prefill or 1 for sequence in self._sequences.values()),
            kv_blocks=self.kv.free,
            kv_blocks_reserved=int(WATERMARK * self.kv.total) if self._sequences else 0,
            block_size=self.profile.block_size,
        )

    def admit(self, request: Request, output_length: int) -> None:
        """Takes in a request whose whole answer has this many tokens.

        Raises:
            RuntimeError: its prefix does not fit; the plan was wrong.
        """
        if not self.kv.try_hold(request.id, request.prefix_tokens):
            raise RuntimeError(f"request {request.id} was admitted without room for its prefix")
        self._sequences[request.id] = _Sequence(request, output_length, to_prefill=request.prefix_tokens)

    def evict(self, request: Request) -> None:
        """Drops a request, if it is here, and frees its blocks."""
        if self._sequences.pop(request.id, None) is not None:
            self.kv.release(request.id)

    def begin_step(self, select_victim: Callable[[], Request | None]) -> Step | None:
        """Packs the next step, evicting victims where KV blocks run out. None if there is nothing to do."""
        decoding = [s for s in self._sequences.values() if not s.to_prefill]
        for sequence in decoding:
            self._make_room(sequence, select_victim)
        decoding = [s for s in decoding if self._holds(s)]
        tokens_left = self.profile.max_batched_tokens - len(decoding)
        prefilling: list[tuple[_Sequence, int]] = []
        for sequence in self._sequences.values():
            if sequence.to_prefill and tokens_left:
                chunk = min(sequence.to_prefill, tokens_left)
                tokens_left -= chunk
                prefilling.append((sequence, chunk))
        if not decoding and not prefilling:
            return None
        duration_ms = self.profile.step_ms(
            prefill_tokens=sum(chunk for _, chunk in prefilling),
            decode_sequences=len(decoding),
            context_tokens=sum(s.request.prompt_tokens + s.request.output_tokens for s in decoding),
        )
        return Step(tuple(decoding), tuple(prefilling), duration_ms)

    def end_step(self, step: Step) -> list[TokensProduced]:
        """The tokens the step produced. Sequences evicted since it began produce none."""
        produced: list[TokensProduced] = []
        for sequence, chunk in step.prefilling:
            if self._holds(sequence):
                sequence.to_prefill -= chunk
                if not sequence.to_prefill:
                    produced.append(self._next_token(sequence))
        produced.extend(self._next_token(sequence) for sequence in step.decoding if self._holds(sequence))
        return produced

    def _holds(self, sequence: _Sequence) -> bool:
        return self._sequences.get(sequence.request.id) is sequence

    def _make_room(self, sequence: _Sequence, select_victim: Callable[[], Request | None]) -> None:
        request = sequence.request
        while self._holds(sequence) and not self.kv.try_hold(request.id, request.prefix_tokens):
            victim = select_victim()
            if victim is None:
                raise RuntimeError(f"request {request.id} alone needs more KV blocks than there are")
            self.evict(victim)

    def _next_token(self, sequence: _Sequence) -> TokensProduced:
        request = sequence.request
        text = token_text(request.output_tokens)
        request.output_tokens += 1
        finished = ""
        if request.output_tokens >= sequence.output_length:
            finished = "length" if request.output_tokens >= request.max_tokens else "stop"
            self.evict(request)
        return TokensProduced(request, 1, text, finished)
