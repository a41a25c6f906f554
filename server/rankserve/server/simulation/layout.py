"""What the compiled simulation works on: one record a request, and a few for everything else.

Requests are numbered in order of arrival, so a request's number also breaks its ties. A *group* is the
requests of one priority band and tenant; a *lane* is a part of a group with a heap of its own: one a group,
or one for each bucket of service time under HRRN.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Records = np.recarray[tuple[int], np.dtype[np.void]]
Integers = NDArray[np.int64]
Numbers = NDArray[np.float64]

# How a policy's key behaves, and what may be evicted for what.
STATIC_KEY, LEVEL_KEY, RESPONSE_RATIO = 0, 1, 2
NEVER, BY_REMAINING, BY_LEVEL = 0, 1, 2
NO_RESERVATION, RESERVED = 0, 1
# Why a simulation stopped.
DONE, TOO_LARGE = 0, 1

REQUEST = np.dtype(
    [
        # Given.
        ("arrival_s", "f8"),
        ("key", "f8"),  # the policy's, with nothing generated; the level a request joins at under MLFQ
        ("estimate", "f8"),  # output tokens that preemption believes in
        ("predicted", "f8"),  # output tokens that the bound believes in; inf where unknown
        ("prompt_tokens", "i4"),
        ("output_tokens", "i4"),
        ("reserve_tokens", "i4"),
        ("band", "i4"),
        ("group", "i4"),
        ("lane", "i4"),
        # While it waits.
        ("ageing", "f8"),
        ("wait_key", "f8"),
        ("counted", "f8"),  # the prediction that is in the bound's sum
        ("waiting_since_s", "f8"),
        ("since_step", "f8"),
        ("at_key", "i4"),
        ("at_wait", "i4"),
        ("at_turn", "i4"),
        ("generated", "i4"),
        ("swapped", "i4"),
        ("computed", "i4"),  # tokens whose KV it had when it was evicted
        ("segment", "i8"),  # where its freed blocks stand in the free list; -1 for nowhere
        # While it runs.
        ("quantum_left", "i4"),
        ("resumed", "i4"),
        # What is measured.
        ("scheduled_s", "f8"),
        ("first_token_s", "f8"),
        ("last_token_s", "f8"),
        ("end_s", "f8"),
        ("max_token_gap_s", "f8"),
        ("preemptions", "i4"),
        ("promoted", "i4"),
    ],
    align=True,
)

BAND = np.dtype(
    [
        ("low", "i8"),  # of its slice of the heap by waiting time
        ("first_group", "i8"),
        ("last_group", "i8"),  # exclusive
        ("waiting", "i8"),
        ("picked_counter", "f8"),
    ]
)
GROUP = np.dtype(
    [("low", "i8"), ("first_lane", "i8"), ("last_lane", "i8"), ("waiting", "i8"), ("counter", "f8")]
)
LANE = np.dtype([("low", "i8"), ("length", "i8"), ("service_tokens", "f8")])

STATE = np.dtype(
    [
        ("now_s", "f8"),
        ("gather_until_s", "f8"),  # nobody starts before
        ("steps", "i8"),
        ("running", "i8"),
        ("prefilling", "i8"),
        ("to_prefill", "i8"),  # tokens, over the whole batch
        ("context", "i8"),  # tokens with KV, over all that decode
        ("waiting", "i8"),
        ("free_blocks", "i8"),
        ("first_segment", "i8"),
        ("segments", "i8"),  # appended so far
        ("resuming", "i8"),  # running requests that were restarted and have no new token yet
        ("protected", "i8"),
        ("swap_ms", "f8"),  # added to the next step
        ("busy_s", "f8"),
        ("kv_block_seconds", "f8"),
        ("most_blocks", "i8"),
        ("most_waiting", "i8"),
        ("preemptions", "i8"),
        ("promotions", "i8"),
        ("marks", "i8"),  # entries of the timeline
    ],
    align=True,
)

# What `scheduling.fcfs_bound` keeps, under the same names where it has them.
BOUND = np.dtype(
    [
        ("largest_wait_s", "f8"),
        ("updated_s", "f8"),
        ("bounds_passed", "f8"),
        ("credit", "f8"),
        ("predicted_sum", "f8"),
        ("prompt_sum", "f8"),
        # The length model.
        ("slope", "f8"),
        ("intercept", "f8"),
        ("count", "f8"),
        ("predicted", "f8"),
        ("actual", "f8"),
        ("square", "f8"),
        ("product", "f8"),
        # The agreement; `count` is that of the length model.
        ("log_predicted", "f8"),
        ("log_actual", "f8"),
        ("log_predicted_square", "f8"),
        ("log_actual_square", "f8"),
        ("log_product", "f8"),
        ("trust", "f8"),
        # The pace.
        ("seconds_per_work", "f8"),
        ("work_square", "f8"),
        ("work_time", "f8"),
        ("since_s", "f8"),
        ("work", "f8"),
        ("ends", "i8"),
    ]
)


class Options(NamedTuple):
    """Everything about engine and scheduler that does not change during a run. Times in s unless named."""

    max_sequences: int
    max_batched_tokens: int
    kv_blocks: int  # without those of the shared prefix
    block_size: int
    watermark_blocks: int
    shared_blocks: int
    shared_prefix_tokens: int
    prefix_caching: bool
    key_kind: int
    key_per_output_token: float
    first_quantum: int
    levels: int
    evicts: int
    preempts: bool
    preemption_margin: float
    restart_steps_per_token: float
    swaps: bool
    swap_ms_per_token: float
    reservation: int
    gather_s: float
    threshold_steps: int
    quantum_steps: int
    bounds_band: bool  # whether a bound holds in whole bands, in steps or in time
    max_wait_s: float
    follows_fcfs: bool
    share: float
    forgetting: float
    express_share: float
    express_size: float
    ageing: float
    fair_share: bool
    prompt_token_weight: float
    output_token_weight: float


class Batch(NamedTuple):
    """What runs, in order of admission: arrays of shape [max_sequences], used up to `state.running`.

    Attributes:
        item: the requests.
        tokens: prompt and output tokens so far.
        left: output tokens still to come.
        to_prefill: tokens to prefill before the next output token.
        capacity: tokens that the KV blocks it holds have room for.
        gap_s: largest gap between two of its tokens so far.
    """

    item: Integers
    tokens: Integers
    left: Integers
    to_prefill: Integers
    capacity: Integers
    gap_s: Numbers


class Books(NamedTuple):
    """The state of a run. `state` has one record."""

    requests: Records
    bands: Records
    groups: Records
    lanes: Records
    by_key: Integers
    by_wait: Integers  # of a band
    by_turn: Integers  # of a group
    batch: Batch
    free_list: Integers  # [ring, 2]: request, blocks it freed; oldest first, from `state.first_segment`
    state: Records
    bound: Records  # one
    timeline: Numbers  # [marks, 4]: s, running, waiting, KV blocks used
