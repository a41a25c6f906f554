"""The simulated LLM's batch, one step at a time and without a clock.

Continuous batching as vLLM does it. A step has three parts: each sequence that decodes takes the KV block its
next token needs, evicting others where there is none; unless that happened, waiting requests are admitted;
then every prefilled sequence decodes one token, and what is left of the step's token budget prefills the
others in chunks. The step that completes a prefill produces the sequence's next token.

A preempted sequence recomputes its prefix, but for what it finds of it in the prefix cache. Or, if the engine
swaps, one that was decoding keeps its KV on the host and brings it back when it resumes; the transfers, which
nothing overlaps, lengthen the next step. Host memory has no bound.
"""

from collections.abc import Callable
from dataclasses import dataclass

from rankserve.server.engines.contract import TokensProduced
from rankserve.server.engines.simulated.answers import token_text
from rankserve.server.engines.simulated.kv_blocks import KvBlockPool
from rankserve.server.engines.simulated.profile import Profile
from rankserve.server.scheduling.budget import EngineRoom
from rankserve.server.scheduling.request import Request


@dataclass(slots=True, eq=False)
class _Sequence:
    """Attributes:
    request: whose.
    output_length: tokens of its whole answer.
    to_prefill: tokens of its prefix that are still to be prefilled; 0 once it decodes.
    room: tokens that its KV blocks have room for.
    """

    request: Request
    output_length: int
    to_prefill: int
    room: int


@dataclass(slots=True, frozen=True)
class Step:
    """What one step does, and how long it takes in simulated ms.

    Attributes:
        work: each sequence, in order of admission, with the tokens it prefills; 0 if it decodes one.
        duration_ms: how long that takes.
    """

    work: tuple[tuple[_Sequence, int], ...]
    duration_ms: float


class SimulatedBatch:
    """The sequences an LLM works on, and their KV blocks.

    Args:
        profile: the LLM.
        swaps: whether a preempted sequence keeps its KV on the host.
    """

    def __init__(self, profile: Profile, *, swaps: bool = False) -> None:
        self.profile = profile
        self.kv = KvBlockPool(
            profile.kv_blocks,
            profile.block_size,
            shared=profile.shared_prefix_tokens // profile.block_size,
            prefix_caching=profile.prefix_caching,
        )
        self._swaps = swaps
        self._swap_ms = 0.0
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
            kv_blocks_reserved=int(self.profile.watermark * self.kv.total) if self._sequences else 0,
            block_size=self.profile.block_size,
            kv_blocks_shared=self.kv.shared,
        )

    def hold_blocks(self, select_victim: Callable[[], Request | None]) -> bool:
        """Gives each decoding sequence the KV block for its next token, evicting victims where there is none.

        Returns whether nobody had to be evicted: only then may requests be admitted before `begin_step`.
        """
        undisturbed = True
        for sequence in [s for s in self._sequences.values() if not s.to_prefill]:
            request = sequence.request
            tokens = request.prompt_tokens + request.output_tokens
            if tokens <= sequence.room and undisturbed:
                request.kv_tokens = tokens
                continue
            while self._holds(sequence) and not self.kv.try_hold(request.id, tokens):
                victim = select_victim()
                if victim is None:
                    raise RuntimeError(f"request {request.id} alone needs more KV blocks than there are")
                self.preempt(victim)
                undisturbed = False
            if self._holds(sequence):
                request.kv_tokens = tokens
                sequence.room = self.kv.room_of(tokens)
        return undisturbed

    def admit(self, request: Request, output_length: int) -> None:
        """Takes in a request whose whole answer has this many tokens.

        Raises:
            RuntimeError: its prefix does not fit; the plan was wrong.
        """
        tokens = request.prefix_tokens
        cached = 0
        if request.preemptions and not request.swapped:
            cached = self.kv.take_again(request.id, tokens)
        if not self.kv.try_hold(request.id, tokens):
            raise RuntimeError(f"request {request.id} was admitted without room for its prefix")
        if request.swapped:
            to_prefill = 0
            self._swap_ms += self.profile.swap_ms_per_token * tokens
        else:
            known = self.profile.shared_prefix_tokens + cached * self.kv.block_size
            to_prefill = max(1, tokens - known)
        request.kv_tokens, request.decoding, request.swapped = tokens, not to_prefill, False
        self._sequences[request.id] = _Sequence(request, output_length, to_prefill, self.kv.room_of(tokens))

    def preempt(self, request: Request) -> None:
        """Drops a request that is to resume later."""
        if request.decoding and self._swaps:
            request.swapped = True
            self._swap_ms += self.profile.swap_ms_per_token * request.prefix_tokens
        self.evict(request)

    def evict(self, request: Request) -> None:
        """Drops a request, if it is here, and frees its blocks."""
        sequence = self._sequences.pop(request.id, None)
        if sequence is not None:
            # The last token of a decoding sequence has no KV yet.
            self.kv.release(request.id, request.prefix_tokens - (sequence.to_prefill or 1))
            request.kv_tokens, request.decoding = 0, False

    def begin_step(self) -> Step | None:
        """Packs the next step. None if there is nothing to do."""
        decoding = sum(not sequence.to_prefill for sequence in self._sequences.values())
        tokens_left = self.profile.max_batched_tokens - decoding
        work: list[tuple[_Sequence, int]] = []
        for sequence in self._sequences.values():
            chunk = min(sequence.to_prefill, tokens_left)
            if chunk > 0 or not sequence.to_prefill:
                tokens_left -= chunk
                work.append((sequence, chunk))
        if not work:
            return None
        duration_ms = self._swap_ms + self._step_ms(work)
        self._swap_ms = 0.0
        return Step(tuple(work), duration_ms)

    def end_step(self, step: Step) -> list[TokensProduced]:
        """The tokens the step produced. Sequences evicted since it began produce none."""
        produced: list[TokensProduced] = []
        for sequence, chunk in step.work:
            if self._holds(sequence):
                sequence.to_prefill -= chunk
                if not sequence.to_prefill:
                    produced.append(self._next_token(sequence))
        return produced

    def _holds(self, sequence: _Sequence) -> bool:
        return self._sequences.get(sequence.request.id) is sequence

    def _step_ms(self, work: list[tuple[_Sequence, int]]) -> float:
        decoding = contexts = longest = 0
        prefills: list[tuple[_Sequence, int]] = []
        for sequence, chunk in work:
            if chunk:
                prefills.append((sequence, chunk))
                continue
            # The KV of a sequence's last token is written by the step that decodes the next.
            context = sequence.request.prompt_tokens + sequence.request.output_tokens - 1
            decoding += 1
            contexts += context
            longest = max(longest, context)
        return self.profile.step_ms(
            prefill_tokens=sum(chunk for _, chunk in prefills),
            decode_sequences=decoding,
            context_tokens=contexts,
            prefill_history_tokens=sum(c * (s.request.prefix_tokens - s.to_prefill) for s, c in prefills),
            prefill_squares=sum(chunk * chunk for _, chunk in prefills),
            longest_context=longest,
            sampled_sequences=decoding + sum(chunk == s.to_prefill for s, chunk in prefills),
        )

    def _next_token(self, sequence: _Sequence) -> TokensProduced:
        request = sequence.request
        request.decoding = True
        text = token_text(request.output_tokens)
        request.output_tokens += 1
        finished = ""
        if request.output_tokens >= sequence.output_length:
            finished = "length" if request.output_tokens >= request.max_tokens else "stop"
            self.evict(request)
        return TokensProduced(request, 1, text, finished)
