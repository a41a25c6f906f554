"""Lays out a run for the compiled simulation: what policy, profile and settings mean in numbers."""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rankserve.server.engines.simulated.profile import Profile
from rankserve.server.scheduling.fair_share import FairShare
from rankserve.server.scheduling.policies import (
    BucketPolicy,
    HighestResponseRatioNext,
    Policy,
    RemainingTimePolicy,
    SkipJoinMlfq,
)
from rankserve.server.scheduling.starvation import StarvationSettings
from rankserve.server.simulation import layout
from rankserve.server.simulation.columns import Numbers, RequestColumns
from rankserve.server.simulation.layout import Batch, Books, Options, Records

# Segments of the free list that nothing is left of may stand between others.
_FREE_LIST_SLACK = 4


class UnsupportedPolicyError(ValueError):
    """A policy that the compiled simulation does not know; the step-by-step one knows all."""


@dataclass(slots=True, frozen=True)
class SimulationSettings:
    """Everything about the scheduler but its policy.

    Attributes:
        starvation: bounds on waiting.
        fair_share: between tenants.
        preemption: "off", "recompute" or "swap".
        preemption_margin: by how many times its cost an eviction must pay.
        kv_reservation: KV blocks kept for a running request to grow into: "none", "predicted" or "max".
        gather_s: for how long nobody starts after a request came into an empty queue.
    """

    starvation: StarvationSettings = field(default_factory=StarvationSettings)
    fair_share: FairShare = field(default_factory=FairShare)
    preemption: str = "off"
    preemption_margin: float = 1.0
    kv_reservation: str = "none"
    gather_s: float = 0.0


def check_lengths(columns: RequestColumns, profile: Profile) -> None:
    """Raises ValueError if a request does not fit into the engine."""
    lengths = columns.prompt_tokens + columns.true_output_tokens
    too_long = np.count_nonzero(lengths > profile.max_model_len)
    if too_long:
        raise ValueError(
            f"{too_long} requests are longer than the {profile.max_model_len} tokens of {profile.name}'s"
            f" max_model_len; the longest has {lengths.max()} prompt and output tokens"
        )


def make_options(
    columns: RequestColumns, policy: Policy, profile: Profile, settings: SimulationSettings
) -> Options:
    """What does not change during a run.

    Raises:
        UnsupportedPolicyError: the compiled simulation does not know the policy.
    """
    key_kind, evicts = layout.STATIC_KEY, layout.NEVER
    if isinstance(policy, SkipJoinMlfq):
        key_kind, evicts = layout.LEVEL_KEY, layout.BY_LEVEL
    elif isinstance(policy, HighestResponseRatioNext):
        key_kind = layout.RESPONSE_RATIO
    elif isinstance(policy, RemainingTimePolicy):
        evicts = layout.BY_REMAINING
    elif isinstance(policy, BucketPolicy) or type(policy).prefers is not Policy.prefers:
        raise UnsupportedPolicyError(f"the compiled simulation does not know how {policy.name} decides")
    shared_blocks = profile.shared_prefix_tokens // profile.block_size
    kv_blocks = profile.kv_blocks - shared_blocks
    starvation = settings.starvation
    bound = policy.bound
    swaps = settings.preemption == "swap"
    return Options(
        max_sequences=profile.max_sequences,
        max_batched_tokens=profile.max_batched_tokens,
        kv_blocks=kv_blocks,
        block_size=profile.block_size,
        watermark_blocks=int(profile.watermark * kv_blocks),
        shared_blocks=shared_blocks,
        shared_prefix_tokens=profile.shared_prefix_tokens,
        prefix_caching=profile.prefix_caching,
        key_kind=key_kind,
        key_per_output_token=float(policy.key_per_output_token),
        first_quantum=policy.quantum_tokens if isinstance(policy, SkipJoinMlfq) else 1,
        levels=policy.levels if isinstance(policy, SkipJoinMlfq) else 1,
        evicts=evicts,
        preempts=settings.preemption != "off",
        preemption_margin=settings.preemption_margin,
        restart_steps_per_token=profile.restart_steps_per_token(swaps=swaps),
        swaps=swaps,
        swap_ms_per_token=profile.swap_ms_per_token,
        reservation=layout.NO_RESERVATION if settings.kv_reservation == "none" else layout.RESERVED,
        gather_s=settings.gather_s,
        threshold_steps=starvation.threshold_steps,
        quantum_steps=starvation.quantum_steps,
        bounds_band=starvation.max_wait_s is not None or starvation.threshold_steps > 0,
        max_wait_s=math.inf if starvation.max_wait_s is None else starvation.max_wait_s,
        follows_fcfs=bound is not None,
        share=0.0 if bound is None else bound.share,
        forgetting=0.0 if bound is None else bound.forgetting,
        express_share=0.0 if bound is None else bound.express_share,
        express_size=0.0 if bound is None else bound.express_size,
        ageing=0.0 if bound is None else bound.ageing,
        fair_share=settings.fair_share.enabled and bool(np.any(columns.tenant != columns.tenant[:1])),
        prompt_token_weight=settings.fair_share.prompt_token_weight,
        output_token_weight=settings.fair_share.output_token_weight,
    )


def make_books(
    columns: RequestColumns,
    policy: Policy,
    options: Options,
    settings: SimulationSettings,
    timeline: int,
) -> Books:
    """The state before anything has arrived."""
    count = len(columns)
    requests = _records(count, layout.REQUEST)
    requests.arrival_s = columns.arrival_s
    requests.prompt_tokens = columns.prompt_tokens
    requests.output_tokens = columns.true_output_tokens
    requests.key = _keys(policy, columns)
    requests.estimate = _estimates(policy, columns)
    requests.predicted = columns.expected_tokens
    requests.reserve_tokens = _reserved_tokens(columns, settings.kv_reservation)
    for name in ("scheduled_s", "first_token_s", "end_s"):
        requests[name] = -1.0
    requests.segment = -1
    bands, groups, lanes = _ranks(requests, columns, policy, options)
    state = _records(1, layout.STATE)
    state[0].free_blocks = options.kv_blocks
    state[0].segments = 1
    segments = _FREE_LIST_SLACK * options.kv_blocks if options.prefix_caching else 1
    free_list = np.zeros((segments, 2), np.int64)
    free_list[0] = -1, options.kv_blocks
    return Books(
        requests=requests,
        bands=bands,
        groups=groups,
        lanes=lanes,
        by_key=np.zeros(count, np.int64),
        by_wait=np.zeros(count if options.bounds_band else 0, np.int64),
        by_turn=np.zeros(count if options.follows_fcfs else 0, np.int64),
        batch=_batch(options.max_sequences),
        free_list=free_list,
        state=state,
        bound=_bound(),
        timeline=np.zeros((timeline, 4)),
    )


def _records(count: int, dtype: np.dtype[np.void]) -> Records:
    return np.zeros(count, dtype).view(np.recarray)


def _bound() -> Records:
    bound = _records(1, layout.BOUND)
    bound[0].slope = bound[0].trust = 1.0
    return bound


def _batch(slots: int) -> Batch:
    item, tokens, left, to_prefill, capacity = np.zeros((5, slots), np.int64)
    return Batch(item, tokens, left, to_prefill, capacity, np.zeros(slots))


def _keys(policy: Policy, columns: RequestColumns) -> Numbers:
    if isinstance(policy, SkipJoinMlfq):
        return np.asarray(policy.join_level(columns.as_request()), np.float64)
    keys = np.broadcast_to(np.asarray(policy.key(columns.as_request()), np.float64), len(columns))
    if np.isnan(keys).any():
        raise ValueError(f"policy {policy.name} gave a key that is not a number")
    return keys


def _estimates(policy: Policy, columns: RequestColumns) -> Numbers:
    if isinstance(policy, RemainingTimePolicy):
        return np.asarray(policy.length_tokens(columns.as_request()), np.float64)
    return np.zeros(len(columns))


def _reserved_tokens(columns: RequestColumns, kv_reservation: str) -> NDArray[np.int64]:
    if kv_reservation == "predicted":
        return np.minimum(np.ceil(columns.expected_tokens_p90), columns.max_tokens).astype(np.int64)
    return columns.max_tokens


def _ranks(
    requests: Records, columns: RequestColumns, policy: Policy, options: Options
) -> tuple[Records, Records, Records]:
    """Bands, groups and lanes, and their numbers in the requests."""
    tenant = columns.tenant if options.fair_share else np.zeros(len(columns), np.int64)
    bucket = np.zeros(len(columns))
    if isinstance(policy, BucketPolicy):
        bucket = np.asarray(policy.bucket(columns.as_request()), np.float64)
    priorities, band = np.unique(columns.priority, return_inverse=True)
    # Tenants of a band in order of their first request, which breaks ties between them.
    tenants = int(tenant.max(initial=0)) + 1
    pairs, first, pair = np.unique(band * tenants + tenant, return_index=True, return_inverse=True)
    order = np.lexsort([first, pairs // tenants])
    band_of_group, group = pairs[order] // tenants, np.argsort(order)[pair]
    buckets, bucket_number = np.unique(bucket, return_inverse=True)
    pairs, lane = np.unique(group * len(buckets) + bucket_number, return_inverse=True)
    group_of_lane, bucket_of_lane = pairs // len(buckets), buckets[pairs % len(buckets)]
    requests.band, requests.group, requests.lane = band, group, lane
    bands, groups, lanes = (
        _records(len(priorities), layout.BAND),
        _records(len(band_of_group), layout.GROUP),
        _records(len(group_of_lane), layout.LANE),
    )
    bands.low = _starts(band, len(bands))[:-1]
    groups.low = _starts(group, len(groups))[:-1]
    first_group = np.searchsorted(band_of_group, np.arange(len(bands) + 1))
    bands.first_group, bands.last_group = first_group[:-1], first_group[1:]
    first_lane = np.searchsorted(group_of_lane, np.arange(len(groups) + 1))
    groups.first_lane, groups.last_lane = first_lane[:-1], first_lane[1:]
    lanes.low = _starts(lane, len(lanes))[:-1]
    if isinstance(policy, HighestResponseRatioNext):
        lanes.service_tokens = [policy.service_tokens(bucket) for bucket in bucket_of_lane.tolist()]
    return bands, groups, lanes


def _starts(numbers: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Where the slice of each number begins, if each gets as many places as it occurs."""
    return np.concatenate([[0], np.cumsum(np.bincount(numbers, minlength=count))])
