"""Whose turn it is: the virtual token counter (Sheng et al. 2024, "Fairness in Serving LLMs", algorithm 2).

Each tenant has a counter of the service it was given; the one with the smallest goes next. Who comes back
after a pause is lifted to the others' level, so idleness saves up no credit; who sends a flood only moves its
own counter. Between two tenants that both always have requests waiting, the service received differs by a
bounded amount, however many requests either sends and however short it pretends they are.
"""

import math
from dataclasses import dataclass
from heapq import heappop, heappush, heapreplace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rankserve.server.scheduling.lane import Lane


@dataclass(slots=True, frozen=True)
class FairShare:
    """What service costs. A decoded token takes longer than a prefilled one.

    Attributes:
        enabled: whether tenants take turns; if not, they are not told apart.
        prompt_token_weight: charged for each prompt token at a request's first start.
        output_token_weight: charged for each token produced.
    """

    enabled: bool = True
    prompt_token_weight: float = 1.0
    output_token_weight: float = 2.0

    def __post_init__(self) -> None:
        for weight in (self.prompt_token_weight, self.output_token_weight):
            if not 0 <= weight < math.inf:
                raise ValueError(f"a token weighs 0 or more in fair shares, got {weight}")


class Turns:
    """The lanes of one band by counter. Counters only grow, so an old entry is at worst too early.

    Attributes:
        last_counter: what the tenant that started last had been served before; where a tenant finds nobody
            waiting, its counter is lifted to this.
    """

    __slots__ = ("_turns", "last_counter")

    def __init__(self) -> None:
        self._turns: list[tuple[float, int, Lane]] = []
        self.last_counter = 0.0

    def first(self) -> "Lane | None":
        """The lane whose turn it is, of those that have requests waiting."""
        turns = self._turns
        while turns:
            counter, number, lane = turns[0]
            if not lane.busy:
                heappop(turns)
                lane.has_turn = False
            elif counter < lane.counter:
                heapreplace(turns, (lane.counter, number, lane))
            else:
                return lane
        return None

    def floor(self) -> float:
        """The counter below which nobody joins."""
        first = self.first()
        return self.last_counter if first is None else first.counter

    def entries(self) -> "list[tuple[float, int, Lane]]":
        """The heap of (counter, number, lane), of which the counters may be older ones; not to be changed."""
        return self._turns

    def join(self, lane: "Lane") -> None:
        """A tenant that had nothing waiting is about to."""
        lane.counter = max(lane.counter, self.floor())
        if not lane.has_turn:
            lane.has_turn = True
            heappush(self._turns, (lane.counter, lane.number, lane))
