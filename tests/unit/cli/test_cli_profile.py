"""`rankserve profile`: from measurements to a profile that the engine finds, or to an error that helps."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("numpy", reason="needs the extra server: pip install 'rankserve[server]'")

from rankserve.cli.main import app
from rankserve.server.engines.simulated.profiles import find_profile

STEPS = "prefill_tokens,decode_sequences,context_per_sequence,step_ms\n" + "\n".join(
    f"{p},{n},{c},{4 + 0.125 * p + 0.5 * n + n * c / 1024}"
    for p in (0, 64)
    for n in (0, 1, 8)
    for c in (128, 1024)
    if p + n
)


def run(*arguments: object, fails: bool = False) -> str:
    result = CliRunner().invoke(app, ["profile", *map(str, arguments)])
    assert result.exit_code == (1 if fails else 0), result.output
    return result.stderr if fails else result.stdout


@pytest.fixture
def steps(tmp_path: Path) -> Path:
    path = tmp_path / "steps.csv"
    path.write_text(STEPS)
    return path


def test_own_measurements_become_a_profile_with_one_command(tmp_path: Path, steps: Path) -> None:
    out = tmp_path / "own.toml"
    added = json.loads(run("add", out, "--steps", steps, "--kv-blocks", 500, "--max-sequences", 32, "--json"))
    assert added["method"] == "interpolate"
    assert added["written"] == [str(out), str(tmp_path / "own.npz")]
    own = find_profile(str(out))
    assert (own.kv_blocks, own.max_sequences, own.max_model_len) == (500, 32, 8000)
    step_ms = own.step_ms(prefill_tokens=32, decode_sequences=4, context_tokens=4 * 512)
    assert step_ms == pytest.approx(4 + 4 + 2 + 2)
    shown = json.loads(run("show", out, "--json"))
    assert shown["steps"] == added["steps"]
    assert max(step["decode_sequences"] for step in shown["steps"]) == 32
    assert "8.00 ms" not in run("show", out)
    assert "kv_blocks              500" in run("show", out)


def test_a_shared_prefix_is_part_of_a_profile(tmp_path: Path, steps: Path) -> None:
    out = tmp_path / "own.toml"
    run("add", out, "--steps", steps, "--kv-blocks", 500, "--shared-prefix-tokens", 32)
    assert find_profile(str(out)).shared_prefix_tokens == 32
    refused = run("add", out, "--steps", steps, "--kv-blocks", 500, "--shared-prefix-tokens", 20, fails=True)
    assert "shared_prefix_tokens" in refused


def test_what_swapping_costs_is_stated_or_said_to_be_missing(tmp_path: Path, steps: Path) -> None:
    pytest.importorskip("pyarrow", reason="needs the extra simulate: pip install 'rankserve[simulate]'")
    trace = tmp_path / "trace.csv"
    trace.write_text("arrival_s,input_tokens,output_tokens\n0,3,4\n1,3,4\n")
    for given, says in ((0.25, False), (0, True)):
        out = tmp_path / f"own{given}.toml"
        run("add", out, "--steps", steps, "--kv-blocks", 500, "--swap-ms-per-token", given)
        assert find_profile(str(out)).swap_ms_per_token == given
        simulated = CliRunner().invoke(
            app,
            ["simulate", "-w", str(trace), "-p", "fcfs", "--preemption", "swap", "--profile", str(out)],
        )
        assert simulated.exit_code == 0, simulated.output
        assert ("swapping costs nothing" in simulated.stderr) == says


def test_a_fit_reports_its_error(tmp_path: Path, steps: Path) -> None:
    out = tmp_path / "own.toml"
    added = json.loads(
        run(
            "add",
            out,
            "--steps",
            steps,
            "--kv-blocks",
            9,
            "--method",
            "linear",
            "--cpu-overhead-ms",
            1,
            "--json",
        )
    )
    assert added["method"] == "linear"
    assert added["worst_error"] < 1e-9
    assert "base_ms = 4.0" in out.read_text() or "base_ms = 3.99999" in out.read_text()
    step_ms = find_profile(str(out)).step_ms(prefill_tokens=0, decode_sequences=1, context_tokens=0)
    assert step_ms == pytest.approx(5.5)


def test_an_incomplete_grid_is_fitted_and_said_so(tmp_path: Path, steps: Path) -> None:
    steps.write_text("\n".join(line for line in STEPS.splitlines() if not line.startswith("64,8,")))
    printed = run("add", tmp_path / "own.toml", "--steps", steps, "--kv-blocks", 500)
    assert "linear fit: off by 0.0%" in printed
    assert "has no step of 64 prefill tokens with 8 decoding sequences" in printed


def test_layers_come_from_the_models_config(tmp_path: Path) -> None:
    attention, dense, sampled = (tmp_path / f"{name}.csv" for name in ("tp2_attention", "dense", "sampled"))
    attention.write_text(
        "prefill_chunk,kv_prefill,n_decode,kv_decode,time_us\n"
        + "\n".join(
            f"{p},0,{n},{c},{p + n * c}" for p in (0, 16) for n in (0, 1, 4) for c in (10, 20) if p + n
        )
    )
    dense.write_text("layer,tokens,time_us\nqkv_proj,1,50\nqkv_proj,64,50\n")
    sampled.write_text("layer,sequences,time_us\nlm_head,1,400\nlm_head,64,400\n")
    config = tmp_path / "config.json"
    config.write_text('{"num_hidden_layers": 10, "hidden_size": 64, "max_position_embeddings": 100}')
    tables = ("--attention", attention, "--dense", dense, "--per-sequence", sampled)
    common = ("add", tmp_path / "own.toml", *tables, "--kv-blocks", 500)
    result = CliRunner().invoke(app, ["profile", *map(str, common), "--config", str(config)])
    assert result.exit_code == 0
    assert "give --tensor-parallel 2" in result.stderr
    own = find_profile(str(tmp_path / "own.toml"))
    # 20 us of attention, 50 of qkv_proj and two gaps of 0.5 us in 10 layers; LM head; the rest as stated.
    expected_ms = 10 * 0.071 + 0.4 + 0.0005 + 0.16
    assert own.step_ms(prefill_tokens=0, decode_sequences=1, context_tokens=20) == pytest.approx(expected_ms)
    assert own.max_model_len == 100
    assert "--layers" in run(*common, fails=True)
    assert "--hidden-size" in run(*common, "--layers", 10, "--tensor-parallel", 2, fails=True)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("add", "own.toml", "--kv-blocks", 5), "either --steps, or all of"),
        (("add", "own.json", "--kv-blocks", 5), "named .toml"),
        (("show", "gone.toml"), "gone.toml"),
        (("show", "gone"), "a100-llama3-8b"),
    ],
)
def test_errors_say_what_to_do(arguments: tuple[object, ...], says: str) -> None:
    error = run(*arguments, fails=True)
    assert error.startswith("error: ")
    assert says in error


def test_bad_measurements_write_nothing(tmp_path: Path, steps: Path) -> None:
    steps.write_text(STEPS + "\n1,2,3\n")
    error = run("add", tmp_path / "own.toml", "--steps", steps, "--kv-blocks", 5, fails=True)
    assert f"{steps}, line 12" in error
    assert not (tmp_path / "own.toml").exists()


def test_the_list_names_every_profile() -> None:
    listed = run("list")
    for profile in json.loads(run("list", "--json")):
        assert profile["name"] in listed
