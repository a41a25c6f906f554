"""The simulated LLM against two real vLLM runs, from kernel tables alone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"

pytestmark = pytest.mark.skipif(
    not (DATA / "validation").is_dir(), reason="needs the real runs in ../shared/data/validation"
)


def test_latencies_of_the_real_runs_are_reproduced(tmp_path: Path) -> None:
    plot = tmp_path / "curves.png"
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "fidelity.py", "--json", "--plot", plot],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert len(found["runs"]) == 2
    assert found["worst_e2e_error"] < 0.05
    assert found["worst_tpot_error"] < 0.05
    assert found["worst_ttft_error"] < 0.10
    assert plot.stat().st_size > 10_000


def test_another_run_needs_its_profile() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "fidelity.py", "--requests", "requests.csv"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "needs both --requests and --profile" in done.stderr


def test_another_run_is_replayed_under_a_profile_by_name() -> None:
    run = DATA / "validation" / "vllm_rtx4090_llama-3.1-8b_requests.csv.gz"
    command = [sys.executable, str(ROOT / "benchmarks" / "fidelity.py"), "--json", "--requests", str(run)]
    command += ["--profile", "rtx4090-llama3.1-8b", "--shared-prefix-tokens", "16", "--max-sequences", "20"]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    (only,) = found["runs"]
    assert only["max_sequences"] == 20
    # Twenty at a time instead of up to 49: requests wait longer, and each token comes sooner.
    assert only["figures"]["ttft"]["mean"]["error"] > 0.1
    assert only["figures"]["tpot"]["mean"]["error"] < -0.1


@pytest.mark.parametrize(
    ("rows", "says"),
    [("10,1,0,1,1\n10,1,1,2,2\n", "no answer has two tokens"), ("10,3,5,4,9\n", "request 1")],
)
def test_a_run_that_cannot_be_compared_is_refused(tmp_path: Path, rows: str, says: str) -> None:
    run = tmp_path / "run.csv"
    run.write_text("input_tokens,output_tokens,arrival_s,first_token_s,last_token_s\n" + rows)
    command = [sys.executable, str(ROOT / "benchmarks" / "fidelity.py"), "--requests", str(run)]
    command += ["--profile", "rtx4090-llama3.1-8b"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr
