import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from benchmarks.experiments.__main__ import EXPERIMENTS
from benchmarks.experiments.bench import Bench
from benchmarks.experiments.contenders import FCFS, MLFQ, ORACLE
from benchmarks.experiments.intervals import interval, ratios
from benchmarks.experiments.page import write_page, write_section
from benchmarks.experiments.preparation import held_out, score_held_out
from benchmarks.experiments.prompts import ALPACA, DATA_SETS, MMLU_8B, MMLU_70B, Prompts
from benchmarks.experiments.runs import Contender, Scenario, run_all, run_one

from rankserve.records.prompts import split_of
from rankserve.server.engines.simulated.linear_fit import LinearFit
from rankserve.server.engines.simulated.profiles import Profile
from rankserve.server.ranking.repository import bundled_repository
from rankserve.server.simulation.columns import RequestColumns, columns
from rankserve.server.simulation.setup import SimulationSettings

PROMPTS = 120


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Data in the form of the real files, made up, and scores that nobody gave."""
    draw = np.random.default_rng(0)
    data = tmp_path / "data"
    write_lines(
        data / "lengths" / ALPACA.file,
        [
            {"id": f"a{i}", "prompt": f"Secret question {i}", "lengths": draw.integers(1, 200, 4).tolist()}
            for i in range(PROMPTS)
        ],
    )
    write_lines(
        data / "lengths" / MMLU_8B.file,
        [
            {
                "id": f"m{i}",
                "prompt": f"Question {i}",
                "lengths_by_model": {
                    str(each.model): int(draw.integers(1, 900)) for each in (MMLU_8B, MMLU_70B)
                },
            }
            for i in range(PROMPTS)
        ],
    )
    trace = data / "traces" / "azure2023_conv.csv.gz"
    trace.parent.mkdir()
    arrivals = np.cumsum(draw.exponential(0.2, 400))
    with gzip.open(trace, "wt", encoding="utf-8") as file:
        file.write("arrival_s,input_tokens,output_tokens\n")
        file.writelines(f"{each},{draw.integers(1, 900)},{draw.integers(1, 300)}\n" for each in arrivals)
    bench = Bench(data, tmp_path / "out", tmp_path / "models", seeds=(0, 1), scale=0.05, threads=1)
    for data_set in DATA_SETS:
        lengths = draw.integers(1, 400, (PROMPTS, 4 if data_set is ALPACA else 1))
        Prompts(
            ids=np.array([str(i) for i in range(PROMPTS)]),
            prompt_tokens=draw.integers(1, 100, PROMPTS),
            output_tokens=lengths[:, -1],
            other_tokens=lengths[:, :-1],
            score=-lengths[:, -1].astype(np.float64),
            expected_tokens=lengths[:, -1].astype(np.float64),
            expected_tokens_p90=lengths[:, -1].astype(np.float64) * 1.5,
            ranker="none/1",
            tau={"this ranker": 1.0},
        ).save(bench.output / "scores" / f"{data_set.name}.npz")
    return bench


def write_lines(path: Path, records: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_writes_a_table_a_plot_and_every_run(name: str, bench: Bench) -> None:
    module = EXPERIMENTS[name]
    table, text, plot = write_section(bench, name, module.TITLE, module.run(bench))
    with table.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["seed"] for row in rows} == {"0", "1"}
    assert plot.read_bytes().startswith(b"\x89PNG")
    shown = text.read_text(encoding="utf-8")
    assert shown.startswith(f"## {module.TITLE}\n")
    for stated in ("batch cap", "token budget", "KV blocks", "Seeds 0, 1.", "Python", "waiting", "FCFS"):
        assert stated in shown
    assert "nan" not in shown


def test_the_page_needs_every_experiment(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"run `python -m benchmarks\.experiments burst` first"):
        write_page(bench, ["burst"], tmp_path / "results.md")


def test_the_page_holds_the_sections_and_their_plots(bench: Bench, tmp_path: Path) -> None:
    module = EXPERIMENTS["burst"]
    write_section(bench, "burst", module.TITLE, module.run(bench))
    page = tmp_path / "docs" / "results.md"
    page.parent.mkdir()
    write_page(bench, ["burst"], page)
    assert f"## {module.TITLE}" in page.read_text(encoding="utf-8")
    assert (page.parent / "figures" / "burst.png").exists()


def test_an_interval_is_students() -> None:
    # t(0.975, 2 degrees of freedom) = 4.303; the standard error of 1, 2, 3 is 1 / sqrt(3).
    assert interval([1, 2, 3]).half_width == pytest.approx(4.3027 / 3**0.5, rel=1e-4)
    assert str(interval([0.0122, 0.0124])) == "0.0123 ± 0.0013"
    assert str(interval([5.0, 5.0])) == "5.00"
    assert ratios([2, 6], [1, 3]).mean == 2


def one_second_a_token() -> Profile:
    """One slot; each step takes a second and gives a token."""
    fit = LinearFit(base_ms=1000.0)
    return Profile(
        name="hand",
        step_times=fit.step_times(),
        kv_blocks=64,
        max_model_len=64,
        max_sequences=1,
        max_batched_tokens=64,
    )


def at_once(lengths: list[int]) -> RequestColumns:
    count = len(lengths)
    return columns(np.zeros(count), np.ones(count, np.int64), np.array(lengths))


def test_figures_are_those_of_the_papers_worked_example() -> None:
    """Lengths 10, 2, 1 in one slot, 1 s a token: FCFS 6.67 s/token, shortest first 1.27 (Fu et al. 2024)."""
    requests, profile = at_once([10, 2, 1]), one_second_a_token()
    fcfs, oracle = (run_one(requests, profile, each) for each in (FCFS, ORACLE))
    assert fcfs.mean_s_per_token == pytest.approx((10 / 10 + 12 / 2 + 13 / 1) / 3)
    assert oracle.mean_s_per_token == pytest.approx((1 / 1 + 3 / 2 + 13 / 10) / 3)
    # Two wait for ten seconds and one for two more, of thirteen.
    assert fcfs.waiting_mean == pytest.approx((2 * 10 + 2) / 13)
    assert fcfs.longest_ttft_s == pytest.approx(13)


def test_queue_depth_counts_evicted_requests() -> None:
    """FCFS evicts nobody, so the timeline must give its depth as well; under MLFQ evicted ones wait."""
    requests, profile = at_once([40, 2, 1]), one_second_a_token()
    watched = Contender("", FCFS.policy, SimulationSettings(preemption="recompute"))
    plain = run_one(requests, profile, FCFS)
    assert run_one(requests, profile, watched).waiting_mean == pytest.approx(plain.waiting_mean)
    evicting = run_one(requests, profile, MLFQ)
    assert evicting.preemptions > 0
    # The long one has 16 tokens, then waits for 3 s, as the others did for 16 and more.
    assert evicting.waiting_mean * evicting.end_s == pytest.approx(16 + 18 + 3, abs=0.1)


def test_every_policy_of_a_scenario_gets_the_same_requests(bench: Bench) -> None:
    drawn: list[int] = []

    def requests(seed: int) -> RequestColumns:
        drawn.append(seed)
        return at_once([3, 2, 1])

    scenario = Scenario("one", one_second_a_token(), requests)
    results = run_all(bench, [scenario], [FCFS, ORACLE])
    assert drawn == [0, 1]
    assert {key: len(runs) for key, runs in results.items()} == {
        ("one", FCFS.label): 2,
        ("one", ORACLE.label): 2,
    }


def test_only_held_out_prompts_are_scored_and_no_text_is_kept(bench: Bench) -> None:
    [version] = bundled_repository().glob("*/[0-9]*")
    prompts = score_held_out(bench, ALPACA, version)
    assert len(prompts) > 0
    assert {split_of(identifier) for identifier in prompts.ids.tolist()} == {"test"}
    assert prompts.other_tokens.shape == (len(prompts), 3)
    assert (prompts.expected_tokens <= prompts.expected_tokens_p90).all()
    path = bench.output / "scores" / f"{ALPACA.name}.npz"
    prompts.save(path)
    with np.load(path) as saved:
        assert not any("Secret" in str(saved[name]) for name in saved.files)
    assert np.array_equal(held_out(bench, ALPACA).score, prompts.score)
