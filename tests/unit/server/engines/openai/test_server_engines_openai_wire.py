"""Bodies and chunks of the OpenAI API, and tokens out of chunks."""

from contextlib import suppress

import hypothesis.strategies as st
import pytest
from hypothesis import given

from rankserve.server.engines.openai.counting import TokenCount
from rankserve.server.engines.openai.dialects import DIALECTS
from rankserve.server.engines.openai.errors import Broken
from rankserve.server.engines.openai.in_flight import Load
from rankserve.server.engines.openai.load import read_load
from rankserve.server.engines.openai.wire import Chunk, Usage, error_text, read_chunk

VLLM = DIALECTS["vllm"].load


@pytest.mark.parametrize(
    ("data", "chunk"),
    [
        ('{"choices": [{"text": "so"}]}', Chunk("so")),
        ('{"choices": [{"delta": {"role": "assistant"}}]}', Chunk()),
        ('{"choices": [{"delta": {"content": null}, "finish_reason": "stop"}]}', Chunk("", "stop")),
        (
            '{"choices": [{"text": "", "finish_reason": null}],'
            ' "usage": {"prompt_tokens": 3, "completion_tokens": 1}}',
            Chunk("", "", Usage(3, 1)),
        ),
        (
            '{"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}',
            Chunk("", "", Usage(3, 1)),
        ),
        ('{"choices": [{"text": "so"}], "error": null, "usage": null}', Chunk("so")),
        ('{"choices": [], "usage": {"prompt_tokens": -1, "completion_tokens": 1}}', Chunk()),
        ('{"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": true}}', Chunk()),
        ('{"choices": [], "usage": {"prompt_tokens": 1099511627776, "completion_tokens": 1}}', Chunk()),
        ('{"choices": [], "usage": []}', Chunk()),
    ],
)
def test_a_chunk_is_read_in_either_api_s_form(data: str, chunk: Chunk) -> None:
    assert read_chunk(data) == chunk


@pytest.mark.parametrize(
    "data",
    [
        "",
        "{",
        "[]",
        "3",
        "{}",
        '{"choices": [3]}',
        '{"choices": [{}]}',
        '{"choices": [{"text": 3}]}',
        '{"choices": [{"delta": {"content": {}}}]}',
        '{"error": {"message": "out of memory"}}',
        '{"choices": [{"text": "so", "finish_reason": "abort"}]}',
    ],
)
def test_what_is_no_chunk_breaks_the_answer(data: str) -> None:
    with pytest.raises(Broken):
        read_chunk(data)


@given(st.text())
def test_no_data_does_anything_else(data: str) -> None:
    with suppress(Broken):
        read_chunk(data)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"error": {"message": "too\n long", "code": 400}}, "too long"),
        ({"object": "error", "message": "too long"}, "too long"),
        ({"detail": "too long"}, "too long"),
        ("too long", "too long"),
        ({"error": {"message": "x" * 10_000}}, "x" * 500),
    ],
)
def test_an_error_s_text_is_found_and_bounded(body: object, text: str) -> None:
    assert error_text(body) == text


def tokens_of(most: int, *chunks: Chunk) -> tuple[list[tuple[int, str]], tuple[int, str, str, int]]:
    count = TokenCount(most)
    pieces = [piece for chunk in chunks if (piece := count.add(chunk)) is not None]
    end = count.end()
    return [(p.count, p.text) for p in pieces], (end.count, end.text, end.finished, end.input_tokens)


def test_an_endpoint_that_counts_each_chunk_is_believed() -> None:
    pieces, end = tokens_of(
        10,
        Chunk("a b c", usage=Usage(2, 3)),
        Chunk("", usage=Usage(2, 4)),
        Chunk("d", usage=Usage(2, 5)),
        Chunk("e", "stop", Usage(2, 7)),
        Chunk("", "", Usage(2, 7)),
    )
    assert pieces == [(3, "a b c"), (2, "d"), (2, "e")]
    assert end == (0, "", "stop", 2)


def test_of_another_a_chunk_is_a_token_and_the_rest_is_added_at_the_end() -> None:
    pieces, end = tokens_of(
        10, Chunk("a b"), Chunk(""), Chunk("c"), Chunk("", "length"), Chunk(usage=Usage(2, 6))
    )
    assert pieces == [(1, "a b"), (1, "c")]
    assert end == (4, "", "length", 2)


def test_usage_that_lies_gives_no_more_tokens_than_there_may_be() -> None:
    pieces, end = tokens_of(5, Chunk("a", usage=Usage(2, 90)), Chunk("b", "stop", Usage(2, 100)))
    assert sum(count for count, _ in pieces) + end[0] <= 6
    assert "".join(text for _, text in pieces) + end[1] == "ab"


def test_usage_that_goes_back_takes_nothing_back() -> None:
    pieces, end = tokens_of(
        9, Chunk("a", usage=Usage(2, 3)), Chunk("b", usage=Usage(2, 1)), Chunk("c", "stop", Usage(2, 4))
    )
    assert pieces == [(3, "a"), (1, "b"), (1, "c")]
    assert end[0] == 0


def test_a_count_amid_the_answer_that_is_beyond_all_there_may_be_is_none() -> None:
    pieces, _ = tokens_of(20, Chunk("a", usage=Usage(2, 10**9)), Chunk("b", usage=Usage(2, 10**9)))
    assert pieces == [(1, "a"), (1, "b")]


def test_an_endpoint_that_stops_counting_still_streams() -> None:
    pieces, _ = tokens_of(20, Chunk("a", usage=Usage(2, 0)), Chunk("b"), Chunk("c"))
    assert pieces == [(1, "a"), (1, "b"), (1, "c")]


def test_who_does_not_keep_to_the_length_is_cut() -> None:
    count = TokenCount(3)
    for _ in range(1000):
        count.add(Chunk("x" * 100))
        if count.overrun:
            break
    end = count.end()
    assert count.finished
    assert end.finished == "length"
    assert len(end.text) < 5000


def test_a_stream_that_says_no_more_than_that_it_is_complete_has_ended() -> None:
    count = TokenCount(3)
    count.done()
    assert not count.finished
    count.add(Chunk("a"))
    count.done()
    assert count.end().finished == "stop"
    full = TokenCount(1)
    full.add(Chunk("a"))
    full.done()
    assert full.end().finished == "length"


@given(
    st.lists(
        st.builds(
            Chunk,
            text=st.sampled_from(["", "a", "bc"]),
            usage=st.none() | st.builds(Usage, st.integers(0, 9), st.integers(0, 40)),
        ),
        max_size=20,
    )
)
def test_no_text_is_lost_or_repeated_however_it_is_counted(chunks: list[Chunk]) -> None:
    pieces, end = tokens_of(20, *chunks, Chunk("", "stop"))
    assert "".join(text for _, text in pieces) + end[1] == "".join(chunk.text for chunk in chunks)
    assert all(count > 0 for count, _ in pieces)
    assert end[0] > 0 or not end[1]
    assert sum(count for count, _ in pieces) + end[0] <= 21


def test_load_is_summed_over_labels() -> None:
    assert VLLM is not None
    text = (
        "# HELP vllm:num_requests_running x\n"
        'vllm:num_requests_running{engine="0",model_name="a b"} 3.0\n'
        'vllm:num_requests_running{engine="1",model_name="a b"} 2.0 1700000000\n'
        "vllm:num_requests_waiting 4\n"
        'vllm:kv_cache_usage_perc{engine="0"} 0.25\nvllm:kv_cache_usage_perc{engine="1"} 0.5\n'
        "vllm:num_requests_waiting_by_reason 99\n"
    )
    load = read_load(text, VLLM)
    assert load is not None
    assert (load.running, load.waiting, load.kv_use) == (5, 4, 0.5)


def test_requests_that_sglang_tells_by_priority_too_count_once() -> None:
    sglang = DIALECTS["sglang"].load
    assert sglang is not None
    text = (
        'sglang:num_running_reqs{model_name="m",priority=""} 2.0\n'
        'sglang:num_running_reqs{model_name="m",priority="7"} 1.0\n'
        'sglang:num_running_reqs{priority="-9",model_name="m"} 1.0\n'
        'sglang:num_queue_reqs{model_name="m",priority=""} 1.0\n'
        'sglang:num_queue_reqs{model_name="m",priority="7"} 1.0\n'
    )
    assert read_load(text, sglang) == Load(running=2, waiting=1, kv_use=0.0)


def test_a_load_that_cannot_be_is_none() -> None:
    assert VLLM is not None
    for running in ("1e12", "1e308", "inf"):
        text = f"vllm:num_requests_running {running}\nvllm:num_requests_waiting 1\n"
        assert read_load(text, VLLM) is None


@pytest.mark.parametrize("running", ["", "vllm:num_requests_running nan", "vllm:num_requests_running x"])
def test_what_tells_no_load_is_none(running: str) -> None:
    assert VLLM is not None
    assert read_load(f"{running}\nvllm:num_requests_waiting 1\n", VLLM) is None
