"""What each policy's key is, by hand, and that columns of requests get the same keys."""

import math

import numpy as np
import pytest
from support.requests import make_profile, make_request

from rankserve.server.engines.simulated.batch import SimulatedBatch
from rankserve.server.scheduling.policies import (
    BUILT_IN,
    AgedRanking,
    BucketPolicy,
    Classification,
    CostAware,
    EarliestDeadlineFirst,
    Fcfs,
    HighestResponseRatioNext,
    Policy,
    Ranking,
    RemainingTimePolicy,
    ShortestJobFirst,
    ShortestRemainingTimeFirst,
    SkipJoinMlfq,
    make_policy,
)
from rankserve.server.scheduling.preemption import Preemption
from rankserve.server.scheduling.scheduler import Scheduler, SchedulerSettings
from rankserve.server.simulation.columns import columns
from rankserve.server.simulation.virtual_server import VirtualServer

REQUEST = {
    "arrival_s": 3.0,
    "prompt_tokens": 20,
    "max_tokens": 400,
    "score": 1.5,
    "expected_tokens": 250.0,
    "expected_tokens_p90": 250.0 * math.exp(1.2815515655446004),
    "replay_output_tokens": 300,
    "deadline_s": 60.0,
    "output_tokens": 40,
}


@pytest.mark.parametrize(
    ("policy", "key"),
    [
        (Fcfs(), 3.0),
        (Ranking(), -1.5),
        (AgedRanking(ageing_tokens_per_s=10.0), 280.0),
        (Classification(bucket_tokens=100.0), 2.0),
        # Sigma 1: E[o] = 250 e^0.5, E[o^2] = 250^2 e^2.
        (CostAware(prefill_weight=2.0), 20 * 250 * math.exp(0.5) + 250**2 * math.exp(2) / 2 + 40),
        (EarliestDeadlineFirst(), 60.0),
        (ShortestJobFirst(), 300),
        (ShortestRemainingTimeFirst(), 260),
        # Joins at level 0 (20 <= 16 x 64 prompt tokens), leaves it with 16 tokens, and the next with 48.
        (SkipJoinMlfq(), 1),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_keys(policy: Policy, key: float) -> None:
    assert policy.key(make_request("r", **REQUEST)) == pytest.approx(key)


def test_an_unscored_request_comes_last_and_a_median_alone_has_no_spread() -> None:
    for name in ("ranking", "aged_ranking", "classification", "cost_aware"):
        assert make_policy(name).key(make_request("r")) == math.inf
    assert CostAware().key(make_request("r", expected_tokens=10.0)) == 16 * 10 + 10**2 / 2 + 16
    assert CostAware().key(make_request("r", expected_tokens=0.0, expected_tokens_p90=9.0)) == 16
    assert CostAware().key(make_request("r", prompt_tokens=0)) == math.inf


def test_a_request_without_a_deadline_or_a_recorded_length_has_the_worst() -> None:
    assert EarliestDeadlineFirst().key(make_request("r")) == math.inf
    assert ShortestJobFirst().key(make_request("r", max_tokens=70)) == 70
    assert ShortestJobFirst().key(make_request("r", max_tokens=70, replay_output_tokens=90)) == 70


@pytest.mark.parametrize("name", BUILT_IN)
def test_columns_get_the_keys_of_single_requests(name: str) -> None:
    random = np.random.default_rng(0)
    count = 200
    expected = random.lognormal(4.5, 1.0, count)
    expected[:3] = math.inf, 1.0, 1.25
    table = columns(
        np.sort(random.uniform(0, 50, count)),
        random.integers(1, 20_000, count),
        random.integers(1, 2_000, count),
        max_tokens=np.full(count, 1_000),
        score=random.normal(size=count),
        expected_tokens=expected,
        expected_tokens_p90=expected * random.uniform(0.9, 3.0, count),
        deadline_s=random.uniform(50, 90, count),
    )
    requests = [
        make_request(
            str(index),
            arrival_s=table.arrival_s[index].item(),
            prompt_tokens=table.prompt_tokens[index].item(),
            max_tokens=1_000,
            score=table.score[index].item(),
            expected_tokens=table.expected_tokens[index].item(),
            expected_tokens_p90=table.expected_tokens_p90[index].item(),
            replay_output_tokens=table.true_output_tokens[index].item(),
            deadline_s=table.deadline_or_inf_s[index].item(),
        )
        for index in range(count)
    ]
    policy, whole = make_policy(name), table.as_request()
    assert np.array_equal(np.broadcast_to(policy.key(whole), count), [policy.key(r) for r in requests])
    if isinstance(policy, BucketPolicy):
        assert np.array_equal(policy.bucket(whole), [policy.bucket(r) for r in requests])
    if isinstance(policy, RemainingTimePolicy):
        lengths = [policy.length_tokens(r) for r in requests]
        assert np.array_equal(policy.length_tokens(whole), lengths)


def test_what_is_left_is_never_less_than_nothing() -> None:
    request = make_request("r", expected_tokens=30.0, output_tokens=40, replay_output_tokens=60)
    assert Ranking().remaining_tokens(request) == 0
    assert ShortestRemainingTimeFirst().remaining_tokens(request) == 20


def test_mlfq_joins_where_the_quantum_covers_the_prefill() -> None:
    policy = SkipJoinMlfq(quantum_tokens=16, levels=8, prefill_tokens_per_step=64)
    prompts = (1, 1024, 1025, 2048, 2049, 64 * 16 * 64, 64 * 16 * 64 + 1, 10**9)
    levels = [policy.join_level(make_request("r", prompt_tokens=tokens)) for tokens in prompts]
    assert levels == [0, 0, 1, 1, 2, 6, 7, 7]


@pytest.mark.parametrize(
    ("joined", "thresholds"),
    [(0, [16, 48, 112, 240, 496, 1008, 2032]), (2, [64, 192, 448, 960, 1984]), (7, [])],
)
def test_mlfq_demotes_after_each_quantum_but_never_from_the_last_level(
    joined: int, thresholds: list[int]
) -> None:
    policy = SkipJoinMlfq(quantum_tokens=16, levels=8)
    for number, tokens in enumerate(thresholds):
        assert policy.level(joined, tokens - 1) == joined + number
        assert policy.level(joined, tokens) == joined + number + 1
    assert policy.level(joined, 10**9) == 7


def test_mlfq_against_a_schedule_worked_by_hand() -> None:
    """One slot, a token a second (a prefill's step too), quanta of 2, 4 and endless; eviction is free.

    16 prompt tokens join level 0, 20 join level 1. A request of level 0 is demoted with 2 and 6 tokens.

    t 0: A (level 0, length 5) before B (level 1, length 3), which came with it
    t 2: A has 2 tokens: level 1, as B; no better level waits, so it stays
    t 3: C (level 0, length 2) arrives and takes the place of A, which has 3 tokens
    t 5: C ends. A and B are both of level 1, A came first: it has 3 of 5 and ends at t 7
    t 7: B, its 3 tokens are no more than level 1 serves (4): ends at t 10
    t 10: D (level 0, length 9) arrives; 2 tokens at t 12: level 1; 6 tokens at t 16: level 2, the last
    t 16: E (level 1, length 1; arrived at t 15.5, when D was of level 1) takes its place and ends at t 17
    t 17: D again, 6 of 9: ends at t 20
    """
    policy = SkipJoinMlfq(quantum_tokens=2, levels=3, prefill_tokens_per_step=8)
    settings = SchedulerSettings(preemption=Preemption(enabled=True, restart_steps_per_token=1.0))
    server = VirtualServer(Scheduler(policy, settings), SimulatedBatch(make_profile(max_sequences=1)))
    server.run(
        make_request(name, arrival_s=arrival_s, prompt_tokens=prompt, replay_output_tokens=length)
        for name, arrival_s, prompt, length in (
            ("A", 0.0, 16, 5),
            ("B", 0.0, 20, 3),
            ("C", 2.5, 16, 2),
            ("D", 10.0, 16, 9),
            ("E", 15.5, 20, 1),
        )
    )
    assert server.started == ["A", "C", "A", "B", "D", "E", "D"]
    assert {name: server.end_s(name) for name in "ABCDE"} == pytest.approx(
        {"C": 5.0, "A": 7.0, "B": 10.0, "E": 17.0, "D": 20.0}
    )


def test_hrrn_weighs_the_wait_by_the_service_time() -> None:
    """Ratios at t 10: short 1 + 2/10, long 1 + 10/100; at t 30: short 1 + 22/10, long 1 + 30/100."""
    policy = HighestResponseRatioNext()
    short = make_request("short", arrival_s=8.0, expected_tokens=10.0)
    long = make_request("long", arrival_s=0.0, expected_tokens=100.0)
    assert policy.key_at(short, 10.0) < policy.key_at(long, 10.0)
    assert policy.key_at(short, 8.5) > policy.key_at(long, 8.5)
    assert policy.service_tokens(policy.bucket(short)) == pytest.approx(10.0, rel=0.12)
    assert policy.key_at(make_request("unscored"), 1e6) == 0
    assert policy.bucket(make_request("r", expected_tokens=0.2)) == 0


def test_hrrn_is_exact_over_buckets_and_first_come_within_one() -> None:
    scheduler = Scheduler(HighestResponseRatioNext())
    batch = SimulatedBatch(make_profile(max_sequences=1))
    server = VirtualServer(scheduler, batch)
    arrivals = [
        make_request(f"r{i}", arrival_s=0.7 * i, expected_tokens=float(length), replay_output_tokens=length)
        for i, length in enumerate([40, 3, 40, 1, 9, 3, 27, 1, 9, 41])
    ]
    waiting = {r.id: r for r in arrivals}

    server.run(arrivals)
    for name in server.started:
        start_s = server.timings[name].scheduled_s
        assert start_s is not None
        request = waiting.pop(name)
        policy = HighestResponseRatioNext()
        others = [r for r in waiting.values() if r.arrival_s <= start_s]
        assert all(policy.key_at(request, start_s) <= policy.key_at(r, start_s) for r in others)


def test_mlfq_refuses_what_cannot_be() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        SkipJoinMlfq(quantum_tokens=0)
