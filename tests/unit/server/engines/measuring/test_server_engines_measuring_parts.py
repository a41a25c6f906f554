"""The grid, the arithmetic of arrivals, and random prompts."""

import pytest

from rankserve.server.engines.measuring.errors import MeasureError
from rankserve.server.engines.measuring.plan import GROWTH, Limits, make_plan
from rankserve.server.engines.measuring.timing import (
    Arrival,
    Gap,
    MeasuredStep,
    gap_that_ends_at,
    gaps,
    in_proportion,
    never_shorter,
)
from rankserve.server.engines.measuring.words import Prompts

ARRIVALS = [Arrival(1.0, 1), Arrival(1.5, 2), Arrival(3.0, 5), Arrival(4.0, 6)]


def test_a_chunk_of_several_tokens_is_several_steps() -> None:
    assert gaps(ARRIVALS, 2) == [Gap(0.5, 2), Gap(1.0, 5)]


def test_the_step_of_a_prefill_is_the_one_that_ends_with_its_token() -> None:
    assert gap_that_ends_at(ARRIVALS, 1.52) == Gap(0.5, 1)
    assert gap_that_ends_at(ARRIVALS, 3.9) == Gap(1.0, 5)
    assert gap_that_ends_at(ARRIVALS, 3.1) is None
    assert gap_that_ends_at(ARRIVALS[:1], 1.0) is None


def step(prefill: int, context: int, ms: float, sequences: int = 2) -> MeasuredStep:
    return MeasuredStep(prefill, sequences, context, int(prefill > 0), ms, 3, ms, ms)


def test_noise_does_not_make_more_work_faster() -> None:
    steps = [step(0, 40, 10), step(0, 500, 8), step(64, 45, 20), step(64, 510, 30), step(256, 50, 40)]
    assert [s.step_ms for s in never_shorter(steps)] == [9, 9, 20, 30, 40]
    falling = [step(16, 40, 30), step(64, 41, 20), step(16, 500, 31), step(64, 501, 33)]
    assert [s.step_ms for s in never_shorter(falling)] == [25, 25, 31, 33]
    more = [step(0, 40, 9, sequences=1), step(0, 40, 7, sequences=2), step(0, 40, 12, sequences=4)]
    assert [s.step_ms for s in never_shorter(more)] == [8, 8, 12]
    alone = [step(16, 0, 30, sequences=0), step(16, 40, 20, sequences=1)]
    assert never_shorter(alone) == alone


def test_several_prompts_keep_their_share_of_one() -> None:
    single = [step(256, 40, 90), step(1024, 40, 300), step(1024, 500, 200)]
    several = MeasuredStep(1024, 2, 480, 4, 180.0, 3, 170.0, 190.0)
    assert in_proportion(several, single, never_shorter(single)).step_ms == pytest.approx(180 * 250 / 200)


def test_several_prompts_come_beside_the_fewest_where_they_have_room() -> None:
    limits = Limits(4, 8192)
    plan = make_plan(limits)
    single = [(tokens, 1) for tokens in plan.prefills]
    assert list(plan.prompts_beside(1, limits)) == [*single, (341, 3)]
    assert list(plan.prompts_beside(2, limits)) == single
    assert list(make_plan(Limits(2, 8192)).prompts_beside(1, Limits(2, 8192))) == single


@pytest.mark.parametrize(
    ("most", "counts"),
    [
        (1, (1,)),
        (2, (1, 2)),
        (4, (1, 2, 3, 4)),
        (16, (1, 2, 4, 8, 15, 16)),
        (256, (1, 2, 4, 8, 16, 32, 64, 128, 255, 256)),
        (4096, (1, 4, 8, 16, 64, 256, 512, 1024, 4095, 4096)),
    ],
)
def test_the_grid_goes_up_to_the_full_batch(most: int, counts: tuple[int, ...]) -> None:
    plan = make_plan(Limits(most, 8192))
    assert plan.counts == counts
    assert plan.prefills == (16, 64, 256, 1024)


def test_the_grid_keeps_to_what_the_engine_takes() -> None:
    plan = make_plan(Limits(8, 512, max_model_len=600, kv_tokens=4000))
    assert plan.prefills == (16, 64, 256, 504)
    assert plan.contexts == (32, 600 - GROWTH)
    cells = list(plan.cells(Limits(8, 512, 600, 4000)))
    assert max(context for context, count in cells if count == 4) == 344
    # Of 8 sequences only short ones fit beside the longest prefill.
    assert {context for context, count in cells if count == 8} == {131}.union({32})


@pytest.mark.parametrize(
    ("limits", "given", "says"),
    [
        (Limits(4, 100), {"prefills": (16, 97)}, "up to 96 tokens"),
        (Limits(4, 2048), {"counts": (1, 5)}, "more than --max-sequences"),
        (Limits(4, 2048, 280), {}, "no room for prompts of 32 tokens"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    limits: Limits, given: dict[str, tuple[int, ...]], says: str
) -> None:
    with pytest.raises(MeasureError, match=says):
        make_plan(limits, **given)  # type: ignore[arg-type]


def test_prompts_have_the_tokens_that_are_wanted() -> None:
    prompts = Prompts(1)
    prompts.calibrate((16, 25), (256, 385))
    assert len(prompts.of_tokens(301).split()) == 200
    assert Prompts(1).of_words(9) == Prompts(1).of_words(9) != Prompts(2).of_words(9)
