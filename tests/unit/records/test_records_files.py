"""Records on disk: read back as written, and a bad line is named by file and line."""

import gzip
import json
from pathlib import Path

import pytest

from rankserve.records import workload
from rankserve.records.jsonl import RecordError, read_jsonl, write_jsonl
from rankserve.records.prompts import PromptRecord, prompt_id, read_prompts, split_of
from rankserve.records.results import ResultRecord, RunHeader, read_run, write_run
from rankserve.records.workload import read_workload

GOOD = '{"prompt": "Say hello", "output_tokens": 3}\n'


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{not json", "not valid JSON"),
        ("[1, 2]", "expected a JSON object"),
        ('{"output_tokens": 3, "text": "p"}', 'needs "prompt", and has only "output_tokens", "text"'),
        ('{"prompt": "  ", "output_tokens": 3}', '"prompt" must be'),
        ('{"prompt": "p", "words": 3}', 'needs "output_tokens", .* and has only "prompt", "words"'),
        ('{"prompt": "p", "output_tokens": 0}', "from 1 to 10000000 tokens, got 0"),
        ('{"prompt": "p", "output_tokens": -7}', "got -7"),
        ('{"prompt": "p", "output_tokens": 1790000000}', "got 1790000000"),
        ('{"prompt": "p", "output_tokens": true}', "got True"),
        ('{"prompt": "p", "output_tokens": 2147483648}', "got 2147483648"),
        ('{"prompt": "p", "output_tokens": ' + "9" * 5_000 + "}", "not valid JSON"),
        ('{"prompt": ' + "[" * 100_000, "not valid JSON"),
        ('{"id": ["p"], "prompt": "p", "output_tokens": 1}', '"id" must be'),
        (r'{"prompt": "\ud800", "output_tokens": 1}', "surrogate"),
        ('{"prompt": "p", "lengths": []}', "non-empty list"),
        ('{"prompt": "p", "lengths_by_model": {"a": 1, "b": 2}}', "say which: a, b"),
        ('{"prompt": "p", "lengths": [3, 4], "censored": [true]}', "for each of the 2, got 1"),
        ('{"prompt": "p", "lengths": [3, 4], "censored": []}', "for each of the 2, got 0"),
        ('{"prompt": "p", "lengths": [3, 4], "censored": [0, 1]}', "true or false"),
        ('{"prompt": "p", "output_tokens": 3, "censored": "yes"}', "true or false"),
    ],
)
def test_a_bad_line_is_named_by_file_and_line(tmp_path: Path, line: str, problem: str) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(GOOD + "\n" + line + "\n")
    with pytest.raises(RecordError, match=problem) as error:
        list(read_prompts(path))
    assert str(error.value).startswith(f"{path}:3: ")


def test_bytes_that_are_no_text_and_cut_gzip_are_named_too(tmp_path: Path) -> None:
    latin = tmp_path / "latin.jsonl"
    latin.write_bytes(GOOD.encode() + b'{"prompt": "\xe9"}\n')
    with pytest.raises(RecordError, match=r"not UTF-8: byte 0xe9 at column 13 .* iconv") as error:
        list(read_jsonl(latin))
    assert error.value.line == 2
    flipped = tmp_path / "flipped.jsonl.gz"
    # The first byte of the deflated data: a kind of block that there is not.
    flipped.write_bytes(gzip.compress(GOOD.encode())[:10] + b"\xff" * 20)
    with pytest.raises(RecordError, match="unreadable"):
        list(read_jsonl(flipped))
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(gzip.compress(GOOD.encode() * 50)[:-12])
    with pytest.raises(RecordError, match="unreadable"):
        list(read_jsonl(cut))


def test_every_form_of_prompt_record(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl.gz"
    write_jsonl(
        path,
        [
            {"prompt": "one", "output_tokens": 5},
            {"id": "two", "prompt": "two", "lengths": [1, 3], "category": "c"},
            {"id": "three", "prompt": "three", "lengths_by_model": {"a": 1, "b": 2}},
        ],
    )
    one, two, three = read_prompts(path, model="b")
    assert (one.id, one.output_lengths) == (prompt_id("one"), (5,))
    assert (two.id, two.output_lengths, two.mean_length, two.category) == ("two", (1, 3), 2.0, "c")
    assert three.output_lengths == (2,)
    assert [r.prompt for r in read_prompts(path, model="b", limit=1)] == ["one"]


def test_bytes_that_are_no_text_are_found_on_their_line_however_far_they_are_read_ahead(
    tmp_path: Path,
) -> None:
    latin = tmp_path / "latin.jsonl"
    latin.write_bytes(GOOD.encode() * 100 + b'{"prompt": "\xe9"}\n' + GOOD.encode() * 100)
    with pytest.raises(RecordError, match="not UTF-8") as error:
        list(read_jsonl(latin))
    assert error.value.line == 101


def test_lengths_that_are_only_a_lower_bound(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    rows: list[dict[str, object]] = [
        {"prompt": "whole", "lengths": [5, 512]},
        {"prompt": "all", "lengths": [5, 6], "censored": True},
        {"prompt": "one", "lengths": [700, 6], "censored": [False, True]},
        {"prompt": "by model", "lengths_by_model": {"a": 9}, "censored": True},
    ]
    write_jsonl(path, rows)
    expected = [(False, False), (True, True), (False, True), (True,)]
    assert [record.censored for record in read_prompts(path)] == expected
    expected = [(False, True), (True, True), (True, True), (True,)]
    assert [record.censored for record in read_prompts(path, length_cap=512)] == expected
    assert PromptRecord("a", "p", (1, 2)).censored == (False, False)
    with pytest.raises(ValueError, match="2 lengths and 1 marks"):
        PromptRecord("a", "p", (1, 2), censored=(True,))


def test_an_id_names_one_prompt_which_may_come_again(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    lines = [
        '{"id": "a", "prompt": "p", "output_tokens": 3}',
        '{"prompt": "q", "output_tokens": 3}',
        '{"id": "a", "prompt": "p", "output_tokens": 4}',
        '{"prompt": "q", "output_tokens": 3}',
        '{"id": "a", "prompt": "another", "output_tokens": 3}',
    ]
    path.write_text("\n".join(lines[:4]))
    assert [record.output_lengths for record in read_prompts(path)] == [(3,), (3,), (4,), (3,)]
    path.write_text("\n".join(lines))
    with pytest.raises(RecordError, match="'a' is that of another prompt in line 1") as error:
        list(read_prompts(path))
    assert error.value.line == 5


def test_lengths_of_several_llms_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    lines: list[dict[str, object]] = [
        {"prompt": "none stated", "output_tokens": 1},
        {"prompt": "p", "model": "a", "output_tokens": 2},
        {"prompt": "q", "model": "a", "lengths": [3, 4]},
        {"prompt": "r", "model": "of the record, not the lengths", "lengths_by_model": {"a": 5}},
    ]
    write_jsonl(path, lines)
    for asked in (None, "a"):
        assert [r.output_lengths for r in read_prompts(path, model=asked)] == [(1,), (2,), (3, 4), (5,)]
    with pytest.raises(RecordError, match=r":2: the lengths are of 'a', not of the model asked for, 'c'"):
        list(read_prompts(path, model="c"))
    write_jsonl(path, [*lines, {"prompt": "s", "model": "b", "output_tokens": 6}])
    with pytest.raises(
        RecordError, match=r":5: the lengths are of 'b', and those of line 2 of 'a'.*a file of its own"
    ):
        list(read_prompts(path))
    write_jsonl(path, [{"prompt": "s", "model": 7, "output_tokens": 6}])
    with pytest.raises(RecordError, match='"model" must be a string, got 7'):
        list(read_prompts(path))


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_a_file_without_prompts_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(text)
    with pytest.raises(RecordError, match=r"prompts\.jsonl: holds no prompts: put one"):
        list(read_prompts(path))


def test_splits_depend_on_the_id_alone_and_have_their_shares() -> None:
    splits = [split_of(f"id-{i}") for i in range(10_000)]
    assert splits == [split_of(f"id-{i}") for i in range(10_000)]
    assert abs(splits.count("train") / 10_000 - 0.8) < 0.02
    assert abs(splits.count("test") / 10_000 - 0.1) < 0.02
    assert split_of("id-0", (0.0, 0.0, 1.0)) == "test"
    with pytest.raises(ValueError, match="add up to 1"):
        split_of("id-0", (0.5, 0.1, 0.1))


def test_a_workload_replays_the_last_sample_and_keeps_the_others(tmp_path: Path) -> None:
    path = tmp_path / "workload.jsonl"
    write_jsonl(
        path,
        [
            {"id": "a", "prompt": "p", "lengths": [7, 8, 9], "arrival_s": 1.5, "priority": -1},
            {"id": "b", "prompt": "q", "max_tokens": 20},
        ],
    )
    first, second = read_workload(path)
    assert (first.output_tokens, first.other_lengths, first.arrival_s, first.priority) == (9, (7, 8), 1.5, -1)
    assert (second.output_tokens, second.max_tokens, second.arrival_s) == (None, 20, None)
    write_jsonl(tmp_path / "again.jsonl", [first.to_json(), second.to_json()])
    assert list(read_workload(tmp_path / "again.jsonl")) == [first, second]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"id": "a", "prompt": "again", "output_tokens": 1}', "stands twice"),
        ('{"id": "b", "prompt": "p", "arrival_s": -1}', '"arrival_s" must be'),
        ('{"id": "b", "prompt": "p", "arrival_s": true}', '"arrival_s" must be'),
        ('{"id": "b", "prompt": "p", "max_tokens": 0}', '"max_tokens" must be'),
        ('{"id": "b", "prompt": "p", "other_lengths": 5}', '"other_lengths" must be a list'),
        ('{"id": "b", "prompt": "p", "other_lengths": ["a"]}', '"other_lengths" must be integers'),
        ('{"id": "b", "prompt": "p", "priority": 99999}', '"priority" must be .* -1000 to 1000'),
        ('{"id": "b", "prompt": "p", "priority": -1001}', '"priority" must be .* -1000 to 1000'),
        ('{"id": "b", "prompt": "p", "tenant": null}', '"tenant" must be'),
    ],
)
def test_a_bad_workload_line_is_named(tmp_path: Path, line: str, problem: str) -> None:
    path = tmp_path / "workload.jsonl"
    path.write_text('{"id": "a", "prompt": "p"}\n' + line + "\n")
    with pytest.raises(RecordError, match=problem) as error:
        list(read_workload(path))
    assert error.value.line == 2


def test_prompts_that_come_again_without_ids_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "workload.jsonl"
    first = prompt_id("p")
    taken = {"id": f"{first}.3", "prompt": "another"}
    repeated = {"prompt": "p"}
    write_jsonl(path, [repeated, repeated, taken, {"prompt": "q"}, repeated, repeated])
    ids = [record.id for record in read_workload(path)]
    assert ids == [first, f"{first}.2", f"{first}.3", prompt_id("q"), f"{first}.4", f"{first}.5"]
    assert len(list(read_workload(path, limit=2))) == 2


def test_the_priority_of_a_workload_is_bound_as_the_server_s_is() -> None:
    validation = pytest.importorskip("rankserve.server.rpc.validation", reason="needs the extra server")
    assert workload.MAX_PRIORITY == validation.MAX_PRIORITY


def test_a_run_reads_back_as_it_was_written(tmp_path: Path) -> None:
    header = RunHeader(policy="ranking", engine="simulated/x", queue_depth=((0.0, 3), (0.2, 4)))
    results = (
        ResultRecord("a", "finished", 0.1, 2.0, 0.5, 10, 20, (19, 21), 44, score=1.5),
        ResultRecord("b", "cancelled", 0.2, 0.3, error="cancelled"),
    )
    path = tmp_path / "run.jsonl.gz"
    write_run(path, header, results)
    run = read_run(path)
    assert (run.header, run.results) == (header, results)


def test_files_that_are_no_runs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text(GOOD)
    with pytest.raises(RecordError, match="not a result file"):
        read_run(path)
    write_run(path, RunHeader(policy="fcfs", engine="e"), [])
    path.write_text(path.read_text() + json.dumps({"id": "a", "surprise": 1}) + "\n")
    with pytest.raises(RecordError, match="unknown fields surprise"):
        read_run(path)


HEADER = {"schema": "rankserve.results/1", "policy": "fcfs", "engine": "e"}
RESULT = {"id": "a", "outcome": "finished", "sent_s": 0.0, "end_s": 1.0}


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        (
            {"queue_depth": [1, 2]},
            '"queue_depth" must be a list, each [a finite number, an integer], got [1, 2]',
        ),
        ({"queue_depth": [[1.0]]}, '"queue_depth" must be'),
        ({"arrivals": 5}, '"arrivals" must be an object'),
        ({"arrivals": {"rate": "fast"}}, "must give rate as a number"),
        ({"arrivals": {"sender_lateness_p99_s": None}}, "must give sender_lateness_p99_s as a number"),
        ({"versions": {"numpy": 2}}, '"versions" must be an object, each value text'),
        ({"time_scale": 0}, '"time_scale" must be above 0'),
        ({"seed": 10**30}, '"seed" must be an integer'),
        ({"policy": None}, '"policy" must be text'),
    ],
)
def test_a_bad_header_is_named(tmp_path: Path, fields: dict[str, object], problem: str) -> None:
    path = tmp_path / "run.jsonl"
    write_jsonl(path, [HEADER | fields])
    with pytest.raises(RecordError) as error:
        read_run(path)
    assert str(error.value).startswith(f"{path}:1: ")
    assert problem in error.value.problem


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"sent_s": "soon"}, "\"sent_s\" must be a finite number, got 'soon'"),
        ({"sent_s": float("nan")}, '"sent_s" must be a finite number, got nan'),
        ({"end_s": 10**400}, '"end_s" must be a finite number'),
        ({"first_token_s": []}, '"first_token_s" must be a finite number or null'),
        ({"output_tokens": 2.5}, '"output_tokens" must be an integer'),
        ({"output_tokens": True}, '"output_tokens" must be an integer'),
        ({"promoted": 1}, '"promoted" must be true or false'),
        ({"other_lengths": 5}, '"other_lengths" must be a list, each an integer'),
        ({"other_lengths": ["a"]}, '"other_lengths" must be'),
        ({"surprise": 1}, "unknown fields surprise"),
    ],
)
def test_a_bad_result_is_named(tmp_path: Path, fields: dict[str, object], problem: str) -> None:
    path = tmp_path / "run.jsonl"
    write_jsonl(path, [HEADER, RESULT, RESULT | fields])
    with pytest.raises(RecordError) as error:
        read_run(path)
    assert str(error.value).startswith(f"{path}:3: ")
    assert problem in error.value.problem


def test_a_result_without_a_required_field_is_named(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    write_jsonl(path, [HEADER, {"id": "a", "outcome": "finished", "sent_s": 0}])
    with pytest.raises(RecordError, match=':2: needs "end_s"'):
        read_run(path)
