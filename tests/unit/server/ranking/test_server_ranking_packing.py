from hypothesis import given
from hypothesis import strategies as st

from rankserve.server.ranking.packing import pack_by_length


@given(
    lengths=st.lists(st.integers(1, 512), max_size=80),
    max_tokens=st.integers(1, 4096),
    padding_allowance=st.integers(0, 512),
)
def test_every_item_runs_once_within_the_bounds(
    lengths: list[int], max_tokens: int, padding_allowance: int
) -> None:
    runs = pack_by_length(lengths, max_tokens=max_tokens, padding_allowance=padding_allowance)
    assert sorted(index for run in runs for index in run) == list(range(len(lengths)))
    for run in runs:
        padded = len(run) * max(lengths[index] for index in run)
        assert len(run) == 1 or padded <= max_tokens
        assert padded - sum(lengths[index] for index in run) <= padding_allowance


def test_a_long_prompt_does_not_pad_the_short_ones() -> None:
    assert pack_by_length([4, 500, 5], max_tokens=4096, padding_allowance=8) == [[1], [2, 0]]


def test_near_lengths_share_a_run() -> None:
    assert pack_by_length([30, 32, 31], max_tokens=4096, padding_allowance=8) == [[1, 2, 0]]
