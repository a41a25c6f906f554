"""Training on several processes: one list is spread over them, and each computes the loss of the whole list.

torchrun --nproc-per-node 2 $(which rankserve) train --config synthetic --output runs/two
accelerate launch --num_processes 2 --multi_gpu $(which rankserve) train --config opt-125m
"""

import atexit
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self, TypeVar

import torch
from accelerate import PartialState
from torch import Tensor, distributed

T = TypeVar("T")

# The others wait while the first reads and tokenises the data.
_LONGEST_WAIT = timedelta(hours=12)
# DistributedDataParallel outlives the group it used. Were it the last to hold it, it would end gloo's threads
# while it has the GIL, which they may be waiting for: the process would never exit (torch 2.13).
_left: list[Any] = []
atexit.register(_left.clear)


class PeerError(RuntimeError):
    """The first process failed and has said why."""


def is_first_process() -> bool:
    """Whether this process is alone, or the first of those that were started together."""
    return os.environ.get("RANK", "0") == "0"


@dataclass(slots=True, frozen=True)
class Processes:
    """Which of how many processes this one is."""

    rank: int = 0
    count: int = 1

    @classmethod
    @contextmanager
    def joined(cls) -> Iterator[Self]:
        """Joins the processes that ``torchrun`` or ``accelerate launch`` started; else it is alone."""
        if int(os.environ.get("WORLD_SIZE", "1")) < 2 or distributed.is_initialized():
            yield cls.current()
            return
        PartialState(cpu=not torch.accelerator.is_available(), timeout=_LONGEST_WAIT)
        _left.append(distributed.group.WORLD)
        try:
            yield cls.current()
        finally:
            distributed.destroy_process_group()

    @classmethod
    def current(cls) -> Self:
        """Those of the process group, if one was joined."""
        if not distributed.is_initialized():
            return cls()
        return cls(distributed.get_rank(), distributed.get_world_size())

    @property
    def is_first(self) -> bool:
        """The one that writes files and reports."""
        return self.rank == 0

    def share(self, items: int) -> range:
        """Which of so many items are this process's."""
        return range(self.rank, items, self.count)

    def gather(self, own: Tensor, items: int) -> Tensor:
        """The values of all items, on every process, from each one's share.

        Only this process's own values carry a gradient, and it is multiplied by the number of processes:
        where each computes the same loss from the result, the gradients' mean over the processes, which is
        what DistributedDataParallel forms, is the gradient of that loss.

        Args:
            own: [items of ``share``] in its order.
            items: how many all processes have together.

        Returns:
            [items], of the dtype and on the device of ``own``.
        """
        if self.count == 1:
            return own
        width = -(-items // self.count)
        sent = own.new_zeros(width)
        sent[: len(own)] = own.detach()
        received = [torch.empty_like(sent) for _ in range(self.count)]
        distributed.all_gather(received, sent)
        everyone = torch.stack(received, dim=1).flatten()[:items]
        if not own.requires_grad:
            return everyone
        scaled = own.view_as(own)
        scaled.register_hook(  # type: ignore[no-untyped-call]
            lambda gradient: gradient * self.count
        )
        mine = torch.tensor(self.share(items), dtype=torch.long, device=own.device)
        return everyone.index_copy(0, mine, scaled)

    def wait(self) -> None:
        """Returns once every process is here."""
        if self.count > 1:
            distributed.barrier()

    def on_first(self, work: Callable[[], T]) -> T:
        """What ``work`` returns on the first process, which alone runs it; it has to be picklable.

        Raises:
            PeerError: ``work`` failed; on the others. The first one raises what ``work`` did.
        """
        if self.count == 1:
            return work()
        answer: list[Any] = [False, None]
        if not self.is_first:
            distributed.broadcast_object_list(answer)
            if not answer[0]:
                raise PeerError("the first process failed")
        else:
            try:
                answer = [True, work()]
            finally:
                distributed.broadcast_object_list(answer)
        result: T = answer[1]
        return result
