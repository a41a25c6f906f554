import gzip
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from benchmarks.real_engine.collection import OTHERS, SPLIT, Collection, join, sample
from benchmarks.real_engine.gguf_tokenizer import CONTROL, byte_level_bpe
from benchmarks.real_engine.lengths import LengthFigures
from benchmarks.real_engine.order import advantage, another_sample, ceiling, order
from benchmarks.real_engine.places import Places
from benchmarks.real_engine.prediction import Prediction, table
from benchmarks.real_engine.server import EngineError, EngineOptions, RealEngine
from benchmarks.real_engine.speed import speed
from benchmarks.real_engine.step_times import StepTimes, StepTimesError, around, decode_ms, make_profile

from rankserve.records.prompts import PromptRecord, split_of
from rankserve.server.engines.simulated.profiles import find_profile
from rankserve.server.engines.simulated.step_time import step_ms
from rankserve.trainer.config import load_config
from rankserve.trainer.evaluation.metrics import ceilings

TEXT = 1
TOKENS = ["<|end|>", "a", "b", "1", "2", "Ġ", "Ã", "©", "ab", "Ġab", "12"]
MERGES = ["a b", "Ġ ab", "1 2"]
TYPES = [CONTROL] + [TEXT] * (len(TOKENS) - 1)


def test_the_tokenizer_merges_in_order_and_keeps_spaces() -> None:
    tokenizer = byte_level_bpe(TOKENS, MERGES, TYPES)
    assert tokenizer.encode("ab ab").tokens == ["ab", "Ġab"]
    assert tokenizer.decode(tokenizer.encode("ab ab").ids) == "ab ab"


def test_the_tokenizer_takes_digits_one_by_one() -> None:
    assert byte_level_bpe(TOKENS, MERGES, TYPES).encode("12").tokens == ["1", "2"]


def test_the_tokenizer_reads_any_text_as_bytes() -> None:
    tokenizer = byte_level_bpe(TOKENS, MERGES, TYPES)
    assert tokenizer.encode("é").tokens == ["Ã", "©"]
    assert tokenizer.decode(tokenizer.encode("aé").ids) == "aé"


def test_control_tokens_are_one_token_and_no_text() -> None:
    tokenizer = byte_level_bpe(TOKENS, MERGES, TYPES)
    assert tokenizer.encode("ab<|end|>").ids == [TOKENS.index("ab"), 0]
    assert tokenizer.decode([TOKENS.index("ab"), 0]) == "ab"
    assert tokenizer.get_vocab_size() == len(TOKENS)


@pytest.mark.parametrize(
    ("merges", "types", "message"),
    [(["ab"], TYPES, "two tokens"), (["a b 1"], TYPES, "two tokens"), (MERGES, TYPES[1:], "one each")],
)
def test_fields_that_do_not_fit_are_refused(merges: list[str], types: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        byte_level_bpe(TOKENS, merges, types)


def records(count: int) -> list[PromptRecord]:
    return [PromptRecord(f"r-{i}", f"prompt {i}", (i + 1,)) for i in range(count)]


def test_a_larger_sample_begins_with_a_smaller_one() -> None:
    assert sample(records(200), 50) == sample(records(200)[::-1], 120)[:50]


def test_a_sample_has_the_shares_of_the_split() -> None:
    splits = [split_of(record.id, SPLIT) for record in sample(records(4000), 1000)]
    assert splits.count("test") == pytest.approx(1000 * SPLIT[2], abs=40)


def test_each_held_out_prompt_is_asked_several_times_and_all_land_in_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source.jsonl"
    source.write_text(
        "".join(
            json.dumps({"id": each.id, "prompt": each.prompt, "output_tokens": 1}) + "\n"
            for each in records(100)
        )
    )
    monkeypatch.setattr("benchmarks.real_engine.collection.rankserve", answer)
    places = Places(tmp_path / "out", tmp_path / "vllm")
    Collection(source, prompts=60, samples=3, concurrency=2).run(places, "http://127.0.0.1:1/v1")
    with gzip.open(places.lengths, "rt") as lines:
        found = [json.loads(line) for line in lines]
    assert len({each["id"] for each in found}) == 60
    assert {len(each["lengths"]) for each in found if split_of(each["id"], SPLIT) == "test"} == {3}
    assert {len(each["lengths"]) for each in found if split_of(each["id"], SPLIT) != "test"} == {1}


def answer(command: str, prompts: Path, *arguments: object) -> None:
    """As `rankserve collect` would."""
    assert command == "collect"
    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    output, samples = options["--output"], options["--samples"]
    assert isinstance(output, Path)
    assert isinstance(samples, int)
    with gzip.open(output, "wt") as lines:
        for line in prompts.read_text().splitlines():
            lines.write(json.dumps({**json.loads(line), "lengths": [7] * samples}) + "\n")


def test_joining_again_replaces(tmp_path: Path) -> None:
    part = tmp_path / f"{OTHERS}.jsonl.gz"
    with gzip.open(part, "wt") as output:
        output.write("a\n")
    for _ in range(2):
        join([part, part], tmp_path / "whole.jsonl.gz")
    with gzip.open(tmp_path / "whole.jsonl.gz", "rt") as lines:
        assert lines.read() == "a\na\n"


def test_the_split_of_the_config_is_that_of_the_collection() -> None:
    root = Path(__file__).resolve().parents[3]
    assert load_config(root / "benchmarks" / "configs" / "real_engine.toml").split == SPLIT


def test_figures_count_every_answer() -> None:
    figures = LengthFigures.of(
        [PromptRecord("a", "a", (10, 20), censored=(False, True)), PromptRecord("b", "b", (30,))]
    )
    assert (figures.prompts, figures.answers, figures.mean, figures.longest) == (2, 3, 20.0, 30)
    assert figures.at_cap == pytest.approx(1 / 3)


def test_speed_follows_from_latencies(tmp_path: Path) -> None:
    log = tmp_path / "log"
    lines = [
        {"schema": "x"},
        {"id": "a", "sample": 0, "sent": True},
        *({"id": each, "sample": 0, "output_tokens": 30, "latency_s": 2.0} for each in "abcd"),
    ]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    # Two at a time: four answers of 2 s take 4 s.
    found = speed(log, concurrency=2)
    assert (found.answers, found.output_tokens_per_s, found.answers_per_s) == (4, 120 / 4, 1.0)


def test_orders_are_means_over_samples_with_an_interval() -> None:
    random = np.random.default_rng(0)
    expected = random.uniform(3, 6, 200)
    lengths = np.exp(expected[:, None] + random.normal(0, 0.5, (200, 3)))
    best = order(-expected, lengths)
    assert best.low < best.tau < best.high
    assert ceiling(lengths).tau == pytest.approx(ceilings(lengths)["ceiling_mean"])
    assert another_sample(lengths).tau == pytest.approx(ceilings(lengths)["ceiling_sample"], abs=1e-9)
    assert another_sample(lengths).tau < ceiling(lengths).tau < best.tau


def test_an_advantage_is_of_the_same_prompts() -> None:
    random = np.random.default_rng(0)
    expected = random.uniform(3, 6, 200)
    lengths = np.exp(expected[:, None] + random.normal(0, 0.5, (200, 2)))
    better, worse = -expected, -expected + random.normal(0, 0.3, 200)
    found = advantage(better, worse, lengths)
    assert found.tau == pytest.approx(order(better, lengths).tau - order(worse, lengths).tau)
    assert 0 < found.low < found.tau < found.high
    same = advantage(better, better, lengths)
    assert (same.tau, same.low, same.high) == (0.0, 0.0, 0.0)


STUB = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def engine(tmp_path: Path, program: str) -> RealEngine:
    """An engine whose "vLLM" is the program."""
    module = tmp_path / "site" / "vllm" / "entrypoints" / "openai" / "api_server.py"
    module.parent.mkdir(parents=True)
    module.write_text(program)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\ncd {tmp_path / "site"} && exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return RealEngine(EngineOptions(python, tmp_path, tmp_path / "vllm.log"))


def test_an_engine_runs_within_its_block(tmp_path: Path) -> None:
    with engine(tmp_path, STUB) as running:
        assert running.answers()
        assert running.running
    assert not running.running
    assert not running.answers()


def test_an_engine_that_ends_while_it_starts_says_why(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no memory"):
        engine(tmp_path, "raise SystemExit('no memory')").start()


def test_an_engine_that_is_late_is_killed(tmp_path: Path) -> None:
    late = engine(tmp_path, "import time; time.sleep(60)")
    with pytest.raises(EngineError, match="within"):
        late.start(timeout_s=1.0)
    assert not late.running


def test_without_its_environment_an_engine_says_what_makes_it(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="environment"):
        RealEngine(EngineOptions(tmp_path / "none", tmp_path, tmp_path / "vllm.log")).start()


def measured(decode_ms: float) -> dict[str, object]:
    """What `rankserve profile measure --json` tells of an LLM that decodes two sequences in so long."""
    steps = [
        {"prefill_tokens": tokens, "decode_sequences": count, "context_per_sequence": context, "step_ms": ms}
        for tokens, count, context, ms in [
            *((16, 0, 0, 20.0), (256, 0, 0, 200.0)),
            *((0, 1, 40, 10.0), (16, 1, 40, 30.0), (256, 1, 40, 210.0), (0, 2, 40, decode_ms)),
            *((0, 1, 500, 20.0), (16, 1, 500, 40.0), (256, 1, 500, 220.0), (0, 2, 500, 2 * decode_ms)),
        ]
    ]
    command = ["rankserve", "profile", "add", "llm.toml", "--steps", "steps.csv", "--kv-blocks", "99"]
    return {"steps": steps, "command": [*command, "--max-sequences", "2", "--max-batched-tokens", "512"]}


def test_the_steps_after_a_run_are_those_before_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[object, ...]] = []

    def measure(*arguments: object) -> dict[str, object]:
        asked.append(arguments)
        return {"steps": len(asked)}

    monkeypatch.setattr("benchmarks.real_engine.step_times.rankserve_json", measure)
    times = StepTimes("http://127.0.0.1:1/v1", batch_cap=16)
    for name in ("first", "second"):
        times.before(tmp_path / f"{name}.jsonl")
        times.after(tmp_path / f"{name}.jsonl")
    found = [
        json.loads(path.read_text())["steps"] for n in ("first", "second") for path in around(tmp_path / n)
    ]
    assert found == [1, 2, 2, 3]
    assert all(arguments[arguments.index("--sequences") + 1] == "1,15,16" for arguments in asked)


def test_a_profile_has_the_means_of_the_measurements(tmp_path: Path) -> None:
    before, after = around(tmp_path / "run.jsonl")
    before.write_text(json.dumps(measured(12.0)))
    after.write_text(json.dumps(measured(16.0)))
    profile = find_profile(str(make_profile([before, after], tmp_path)))
    assert (profile.kv_blocks, profile.max_sequences, profile.max_batched_tokens) == (99, 2, 512)
    assert step_ms(profile.step_times, 0, 0, 0, 2, 80, 0, 2) == pytest.approx(14.0)
    assert step_ms(profile.step_times, 16, 0, 256, 1, 40, 0, 2) == pytest.approx(30.0)
    assert (decode_ms(before), decode_ms(after)) == (12.0, 16.0)
    slower = find_profile(str(make_profile([before, after], tmp_path, slower=1.5)))
    assert step_ms(slower.step_times, 0, 0, 0, 2, 80, 0, 2) == pytest.approx(21.0)


def test_a_prediction_tells_its_errors() -> None:
    found = Prediction(
        "fcfs", "e2e_s", real=(10.0, 20.0), simulated=(9.0, 21.0), own_speed=(10.0, 20.3), slower=(9.3, 21.6)
    )
    assert found.cells()[2:] == ["15", "15", "+0.0%", "-10.0% to +5.0%", "+1.0%", "+3.0%"]
    assert table([found]).splitlines()[-1].startswith("| fcfs | e2e_s | 15 |")


def test_measurements_of_other_steps_have_no_mean(tmp_path: Path) -> None:
    before, after = around(tmp_path / "run.jsonl")
    before.write_text(json.dumps(measured(12.0)))
    after.write_text(json.dumps({**measured(12.0), "steps": []}))
    with pytest.raises(StepTimesError, match="the same steps"):
        make_profile([before, after], tmp_path)


def test_a_run_without_its_steps_says_what_measures_them(tmp_path: Path) -> None:
    with pytest.raises(StepTimesError, match=r"run-before\.json does not exist.*compare"):
        make_profile(around(tmp_path / "run.jsonl"), tmp_path)
