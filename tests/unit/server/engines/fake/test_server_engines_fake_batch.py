"""The batch: who starts, who waits, who yields, how long a step takes."""

from dataclasses import replace

import pytest

from rankserve.server.engines.fake.batch import Batch, Sequence


def batch(
    max_num_seqs: int = 2,
    kv_tokens: int = 1000,
    ttft_s: float = 0.0,
    itl_s: float = 1.0,
    itl_per_sequence_s: float = 0.0,
    by_priority: bool = False,
) -> Batch:
    return Batch(
        max_num_seqs=max_num_seqs,
        kv_tokens=kv_tokens,
        ttft_s=ttft_s,
        itl_s=itl_s,
        itl_per_sequence_s=itl_per_sequence_s,
        by_priority=by_priority,
    )


def sequence(arrival: int, length: int = 3, prompt_tokens: int = 10, priority: int = 0) -> Sequence:
    return Sequence(arrival=arrival, priority=priority, prompt_tokens=prompt_tokens, length=length)


def run(batch: Batch, now_s: float = 0.0) -> float:
    """Until nothing is left; returns when that is."""
    while (duration_s := batch.begin_step(now_s)) is not None:
        now_s += duration_s
        batch.end_step(now_s)
    return now_s


def test_requests_start_by_arrival_as_places_become_free() -> None:
    one = batch()
    sequences = [sequence(arrival, length) for arrival, length in enumerate((5, 2, 2, 2))]
    for each in reversed(sequences):
        one.add(each)
    run(one)
    assert [each.start_order for each in sequences] == [0, 1, 2, 3]
    assert [each.produced for each in sequences] == [5, 2, 2, 2]
    assert one.tokens_produced == 11


def test_no_more_run_than_may() -> None:
    one = batch(max_num_seqs=3)
    for arrival in range(10):
        one.add(sequence(arrival))
    one.begin_step(0.0)
    assert (len(one.running), one.waiting) == (3, 7)


def test_priority_goes_before_arrival_where_it_is_asked_for() -> None:
    priorities = [5, -1, 0, 0, 3]
    for by_priority, order in ((True, [1, 2, 3, 4, 0]), (False, [0, 1, 2, 3, 4])):
        one = batch(max_num_seqs=1, by_priority=by_priority)
        sequences = [sequence(arrival, priority=priority) for arrival, priority in enumerate(priorities)]
        for each in sequences:
            one.add(each)
        run(one)
        assert sorted(range(5), key=lambda i: sequences[i].first_token_order or 0) == order


def test_a_running_request_is_not_evicted_for_a_better_priority() -> None:
    one = batch(max_num_seqs=1, by_priority=True)
    running = sequence(0, priority=9)
    one.add(running)
    one.begin_step(0.0)
    one.add(sequence(1, priority=0))
    one.end_step(1.0)
    one.begin_step(1.0)
    assert one.running == [running]


def test_who_comes_last_yields_when_the_kv_cache_is_full_and_keeps_its_tokens() -> None:
    one = batch(kv_tokens=30)
    first, second = sequence(0, length=15, prompt_tokens=10), sequence(1, length=10, prompt_tokens=10)
    one.add(first)
    one.add(second)
    run(one)
    assert (first.preemptions, second.preemptions, one.preemptions) == (0, 1, 1)
    assert (first.produced, second.produced) == (15, 10)
    assert one.tokens_produced == 25
    assert second.start_order == 1


def test_who_has_the_worst_priority_yields() -> None:
    one = batch(kv_tokens=30, by_priority=True)
    first, second = sequence(0, length=15, priority=1), sequence(1, length=15)
    one.add(first)
    one.add(second)
    run(one)
    assert (first.preemptions, second.preemptions) == (1, 0)


def test_the_kv_cache_never_holds_more_than_it_can() -> None:
    one = batch(max_num_seqs=8, kv_tokens=50)
    for arrival in range(20):
        one.add(sequence(arrival, length=1 + arrival, prompt_tokens=5 + arrival))
    now_s = 0.0
    while one.begin_step(now_s) is not None:
        assert one.kv_used <= 50
        now_s += 1
        one.end_step(now_s)
    assert one.tokens_produced == sum(range(1, 21))


def test_a_request_that_does_not_fit_is_not_overtaken() -> None:
    one = batch(kv_tokens=30)
    for arrival, prompt_tokens in enumerate((20, 20, 2)):
        one.add(sequence(arrival, prompt_tokens=prompt_tokens))
    one.begin_step(0.0)
    assert (len(one.running), one.waiting) == (1, 2)


def test_what_is_removed_leaves_its_place_at_once() -> None:
    one = batch(max_num_seqs=1)
    first, second, third = (sequence(arrival) for arrival in range(3))
    for each in (first, second, third):
        one.add(each)
    one.begin_step(0.0)
    one.remove(first)
    one.remove(second)
    assert (len(one.running), one.waiting, one.kv_used) == (0, 1, 0)
    assert one.end_step(1.0) == []
    one.begin_step(1.0)
    assert one.running == [third]


def test_the_first_token_comes_after_ttft_and_the_others_after_itl() -> None:
    one = batch(ttft_s=5.0, itl_s=2.0)
    one.add(sequence(0, length=3))
    # Steps end every 2 s: the first at or after 5 is that at 6.
    assert run(one) == 10.0


def test_steps_grow_with_the_batch() -> None:
    one = batch(itl_s=1.0, itl_per_sequence_s=0.5)
    one.add(sequence(0))
    assert one.begin_step(0.0) == 1.5
    one.add(sequence(1))
    one.end_step(1.5)
    assert one.begin_step(1.5) == 2.0


def test_a_slow_request_is_slow_alone() -> None:
    one = batch(itl_s=1.0, ttft_s=1.0)
    slow = replace(sequence(0, length=4), slowdown=3.0)
    other = sequence(1, length=4)
    one.add(slow)
    one.add(other)
    now_s, ended = 0.0, {}
    while (duration_s := one.begin_step(now_s)) is not None:
        now_s += duration_s
        ended.update({each.arrival: now_s for each in one.end_step(now_s)})
    assert ended == {1: 4.0, 0: 12.0}


def test_nobody_else_to_wait_for_a_prefill_is_looked_for_often() -> None:
    one = batch(itl_s=0.0, ttft_s=0.0105)
    one.add(sequence(0, length=2))
    assert one.begin_step(0.0) == 0.001
    assert run(one) == pytest.approx(0.0105)
