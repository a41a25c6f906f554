"""What an engine has room for, and the budget of one admission round."""

from collections.abc import Iterable
from dataclasses import dataclass

from rankserve.server.scheduling.request import Request
from rankserve.server.scheduling.reservation import KvReservation


@dataclass(slots=True, frozen=True)
class EngineRoom:
    """Free capacity of an engine before a step.

    Attributes:
        sequences: slots for further sequences.
        batched_tokens: tokens that the next step can take beyond those of its running sequences.
        kv_blocks: free KV blocks.
        kv_blocks_reserved: of the free blocks, how many admission leaves for running sequences to grow into
            (the watermark); 0 when nothing runs.
        block_size: tokens a KV block holds.
        kv_blocks_shared: leading blocks of every request that all hold in common.
        model: whose requests there is room for; empty for the engine's first.
    """

    sequences: int
    batched_tokens: int
    kv_blocks: int
    kv_blocks_reserved: int = 0
    block_size: int = 16
    kv_blocks_shared: int = 0
    model: str = ""


def blocks_for(tokens: int, block_size: int) -> int:
    """KV blocks that hold this many tokens."""
    return -(-tokens // block_size)


class AdmissionBudget:
    """Lives for one call of `Scheduler.plan`: takes requests for as long as the engine has room.

    Args:
        room: the engine's, taken once.
        reservation: KV blocks to set aside for answers.
        running: what runs; its outstanding reservations count as taken.
    """

    def __init__(
        self,
        room: EngineRoom,
        reservation: KvReservation = KvReservation.NONE,
        running: Iterable[Request] = (),
    ) -> None:
        self._sequences = room.sequences
        self._batched_tokens = room.batched_tokens
        self._kv_blocks = room.kv_blocks - room.kv_blocks_reserved
        self._kv_blocks_shared = room.kv_blocks_shared
        self._block_size = room.block_size
        self._reservation = reservation
        self._reserves = reservation is not KvReservation.NONE
        # Whatever its reservation, a request may have an engine to itself.
        self._ignores_reservation = True
        if self._reserves:
            for request in running:
                self._kv_blocks -= self._set_aside(request, request.kv_tokens)
                self._ignores_reservation = False

    def try_admit(self, request: Request) -> bool:
        """Takes the request's share and returns True, or changes nothing and returns False.

        The whole prefix must find KV blocks, so that no sequence stops in the middle of its prefill, and with
        a reservation its answer too, unless nothing else runs; of the step's tokens one is enough, since a
        long prefill is cut into chunks over several steps.
        """
        if self._sequences < 1 or self._batched_tokens < 1 or self._blocks_needed(request) > self._kv_blocks:
            return False
        self._take(request)
        return True

    def try_replace(self, victim: Request, request: Request) -> bool:
        """Takes the request's share once the victim's is given back, or changes nothing.

        The victim's slot and KV blocks count, but of the step's tokens one must be left without it.
        """
        freed = self._held(victim.kv_tokens)
        if self._reserves:
            freed += self._set_aside(victim, victim.kv_tokens)
        if self._batched_tokens < 1 or self._blocks_needed(request) > self._kv_blocks + freed:
            return False
        self._sequences += 1
        self._kv_blocks += freed
        self._batched_tokens += victim.decoding
        self._take(request)
        return True

    def _take(self, request: Request) -> None:
        self._sequences -= 1
        self._batched_tokens -= min(1 if request.swapped else request.prefix_tokens, self._batched_tokens)
        self._kv_blocks -= self._held(request.prefix_tokens)
        if self._reserves:
            self._kv_blocks -= self._set_aside(request, request.prefix_tokens)
            self._ignores_reservation = False

    def _blocks_needed(self, request: Request) -> int:
        needed = self._held(request.prefix_tokens)
        if self._reserves and not self._ignores_reservation:
            needed += self._set_aside(request, request.prefix_tokens)
        return needed

    def _set_aside(self, request: Request, held_tokens: int) -> int:
        """Blocks reserved for a request beyond those that so many tokens take."""
        whole_tokens = request.prompt_tokens + self._reservation.answer_tokens(request)
        return max(0, self._held(whole_tokens) - self._held(held_tokens))

    def _held(self, tokens: int) -> int:
        """Blocks that a request with this many tokens holds for itself."""
        return max(0, blocks_for(tokens, self._block_size) - self._kv_blocks_shared)
