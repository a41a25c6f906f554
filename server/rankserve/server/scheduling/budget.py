"""What an engine has room for, and the budget of one admission round."""

from dataclasses import dataclass

from rankserve.server.scheduling.request import Request


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
    """

    sequences: int
    batched_tokens: int
    kv_blocks: int
    kv_blocks_reserved: int = 0
    block_size: int = 16


def blocks_for(tokens: int, block_size: int) -> int:
    """KV blocks that hold this many tokens."""
    return -(-tokens // block_size)


class AdmissionBudget:
    """Lives for one call of `Scheduler.plan`: takes requests for as long as the engine has room."""

    def __init__(self, room: EngineRoom) -> None:
        self._sequences = room.sequences
        self._batched_tokens = room.batched_tokens
        self._kv_blocks = room.kv_blocks - room.kv_blocks_reserved
        self._block_size = room.block_size

    def try_admit(self, request: Request) -> bool:
        """Takes the request's share and returns True, or changes nothing and returns False.

        The whole prefix must find KV blocks, so that no sequence stops in the middle of its prefill; of the
        step's tokens one is enough, since a long prefill is cut into chunks over several steps.
        """
        blocks = blocks_for(request.prefix_tokens, self._block_size)
        if self._sequences < 1 or self._batched_tokens < 1 or blocks > self._kv_blocks:
            return False
        self._sequences -= 1
        self._batched_tokens -= min(request.prefix_tokens, self._batched_tokens)
        self._kv_blocks -= blocks
        return True
