"""What a simulation measured."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankserve.server.simulation.columns import Integers, Numbers, RequestColumns


@dataclass(slots=True, frozen=True)
class Totals:
    """Figures of a whole run; times in the LLM's own seconds.

    Attributes:
        steps: LLM steps.
        busy_s: time in which something ran.
        end_s: when the last request finished.
        preemptions: evictions.
        promotions: starts that being due brought forward.
        kv_blocks_mean, kv_blocks_max: KV blocks in use, over the busy time.
        waiting_mean, waiting_max: queue depth, over the time until the last request finished.
    """

    steps: int
    busy_s: float
    end_s: float
    preemptions: int
    promotions: int
    kv_blocks_mean: float
    kv_blocks_max: int
    waiting_mean: float
    waiting_max: int


@dataclass(slots=True, frozen=True)
class Outcome:
    """One run: its requests, and when what happened to each, in the LLM's own seconds from the start.

    Attributes:
        columns: the requests; the arrays below have one entry for each.
        scheduled_s: first start.
        first_token_s: first token.
        end_s: last token.
        max_token_gap_s: longest time between two tokens; 0 with a single one.
        preemptions: evictions.
        promoted: whether being due brought a start of it forward.
        totals: figures of the whole run.
        timeline: [moments, 4]: s, requests running, requests waiting, KV blocks used; empty if not asked for.
    """

    columns: RequestColumns
    scheduled_s: Numbers
    first_token_s: Numbers
    end_s: Numbers
    max_token_gap_s: Numbers
    preemptions: Integers
    promoted: NDArray[np.bool_]
    totals: Totals
    timeline: Numbers
