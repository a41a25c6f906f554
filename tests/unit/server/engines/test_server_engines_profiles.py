"""Profiles: built-in and own, from files, whole steps and kernels."""

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rankserve.server.engines.simulated.csv_table import TableError
from rankserve.server.engines.simulated.kernel_tables import ModelShape, kernel_step_times
from rankserve.server.engines.simulated.linear_fit import LinearFit
from rankserve.server.engines.simulated.profile import Profile
from rankserve.server.engines.simulated.profile_files import ProfileError, write_profile
from rankserve.server.engines.simulated.profiles import UnknownProfileError, find_profile, profiles
from rankserve.server.engines.simulated.step_measurements import read_steps
from rankserve.server.engines.simulated.step_time import StepTimes, step_ms

STEPTIME = Path(__file__).resolve().parents[5] / "shared" / "data" / "steptime"


def profile(step_times: StepTimes) -> Profile:
    return Profile(
        "own", step_times, kv_blocks=100, max_model_len=1600, max_sequences=8, max_batched_tokens=64
    )


def steps_file(folder: Path, lines: list[str], header: str = "") -> Path:
    path = folder / "steps.csv"
    header = header or "prefill_tokens,decode_sequences,context_per_sequence,step_ms"
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def grid_of(fit: LinearFit) -> list[str]:
    """Steps that a linear LLM would take, on a complete grid."""
    steps = [(p, 0, 0) for p in (64, 256)]
    steps += [(p, n, c) for p in (0, 64, 256) for n in (1, 2, 16) for c in (128, 1024)]
    ms = fit(*(np.array(column, float) for column in zip(*((p, n, n * c) for p, n, c in steps), strict=True)))
    return [f"{p},{n},{c},{float(time)!r}" for (p, n, c), time in zip(steps, ms, strict=True)]


def test_built_in_profiles_are_complete_and_linear_ones_are_their_coefficients() -> None:
    assert {"a100-llama3-8b", "h100-llama3-8b", "a100-llama3-70b-tp4", "h100-llama3-70b-tp4"} < set(
        profiles()
    )
    found = find_profile("h100-llama3-8b").step_ms(
        prefill_tokens=100, decode_sequences=10, context_tokens=5000
    )
    assert found == pytest.approx(5.46 + 1.48 + 0.12 + 0.199)
    for each in profiles().values():
        assert each.source
        times = [
            each.step_ms(prefill_tokens=p, decode_sequences=n, context_tokens=1000 * n, longest_context=1500)
            for p, n in ((0, 8), (0, 64), (512, 64), (2048, 64))
        ]
        assert times == sorted(times)


@pytest.mark.parametrize("model", ["llama3-8b", "llama3-70b-tp4"])
def test_interpolated_and_linear_profiles_of_one_model_agree_roughly(model: str) -> None:
    for gpu in ("a100", "h100"):
        linear, interpolated = find_profile(f"{gpu}-{model}"), find_profile(f"{gpu}-{model}-interpolated")
        for p, n in ((0, 1), (0, 96), (256, 32), (1024, 128)):
            step = {"prefill_tokens": p, "decode_sequences": n, "context_tokens": 700 * n}
            assert linear.step_ms(**step) == pytest.approx(interpolated.step_ms(**step), rel=0.3)


def test_unknown_names_list_the_known() -> None:
    with pytest.raises(UnknownProfileError, match=r"h100-llama3-8b.*\.toml"):
        find_profile("h100")


def test_a_linear_profile_survives_its_file(tmp_path: Path) -> None:
    fit = LinearFit(5.0, 0.1, 0.01, 1e-4)
    own = profile(fit.step_times()._replace(overhead_ms=0.5))
    assert write_profile(tmp_path / "own.toml", own, fit) == [tmp_path / "own.toml"]
    read = find_profile(str(tmp_path / "own.toml"))
    step = {"prefill_tokens": 3, "decode_sequences": 5, "context_tokens": 777}
    assert read.step_ms(**step) == pytest.approx(own.step_ms(**step), rel=1e-12)
    assert (read.name, read.kv_blocks, read.max_sequences) == ("own", 100, 8)


def test_a_profile_of_tables_survives_its_files(tmp_path: Path) -> None:
    times = read_steps(steps_file(tmp_path, grid_of(LinearFit(5.0, 0.1, 0.01, 1e-4)))).interpolation()
    own = profile(times._replace(straggler_ms=0.001, prefill_pair_ms=1e-4))
    write_profile(tmp_path / "own.toml", own)
    read = find_profile(str(tmp_path / "own.toml"))
    step = {"prefill_tokens": 70, "decode_sequences": 5, "context_tokens": 777, "longest_context": 300}
    assert read.step_ms(**step) == pytest.approx(own.step_ms(**step), rel=1e-6)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("kv_blocks = ", "cannot be read"),
        ("kv_blocks = 5", "base_ms"),
        ('tables = "gone.npz"\nkv_blocks = 5', "gone.npz"),
        ('tables = "bad.npz"\nkv_blocks = 5', "bad.npz"),
        (
            "base_ms = 1\nper_prefill_token_ms = 0\nper_decode_sequence_ms = 0\nper_context_token_ms = 0",
            "kv_b",
        ),
        (
            "base_ms = 0\nper_prefill_token_ms = 1\nper_decode_sequence_ms = 0\nper_context_token_ms = 0\n"
            "kv_blocks = 9\nmax_model_len = 9\nmax_sequences = 1\nmax_batched_tokens = 9",
            "more than 0 ms",
        ),
    ],
)
def test_a_damaged_profile_is_refused_by_name(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 not an archive")
    path = tmp_path / "own.toml"
    path.write_text(text)
    with pytest.raises(ProfileError, match=says) as raised:
        find_profile(str(path))
    assert "own" in str(raised.value) or "npz" in str(raised.value)


LINEAR = """
base_ms = 5
per_prefill_token_ms = 0.1
per_decode_sequence_ms = 0.1
per_context_token_ms = 0.0
kv_blocks = 100
max_model_len = 1600
max_sequences = 8
max_batched_tokens = 64
"""


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("base_ms = nan", "base_ms must be a number"),
        ("per_context_token_ms = -0.1", "per_context_token_ms must be"),
        ("overhead_ms = -1", "overhead_ms must be"),
        ("overhead_ms = nan", "overhead_ms must be"),
        ("max_sequences = 8.5", "max_sequences must be of type int"),
        ('prefix_caching = "no"', "prefix_caching must be of type bool"),
        ("source = 5", "source must be of type str"),
        ("block_size = 0", "must be at least 1"),
        ("max_model_len = -5", "must be at least 1"),
        ("watermark = 2.0", "watermark must be from 0"),
        ("watermark = -0.1", "watermark must be from 0"),
        ("shared_prefix_tokens = 7", "whole KV blocks"),
        ("shared_prefix_tokens = -16", "whole KV blocks"),
        ("shared_prefix_tokens = 1600", "fewer than the 100"),
        ("swap_ms_per_token = -5", "swap_ms_per_token must be"),
    ],
)
def test_values_that_no_llm_has_are_refused(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "own.toml"
    kept = [each for each in LINEAR.splitlines() if each.split(" =")[0] != line.split(" =")[0]]
    path.write_text("\n".join([*kept, line]))
    with pytest.raises(ProfileError, match=f"own.*{says}"):
        find_profile(str(path))


def test_whole_numbers_stand_for_fractions(tmp_path: Path) -> None:
    """With an integer in their place, the compiled simulation would be compiled anew."""
    path = tmp_path / "own.toml"
    path.write_text(LINEAR + "watermark = 0\nswap_ms_per_token = 1\n")
    read = find_profile(str(path))
    assert [type(value) for value in (read.watermark, read.swap_ms_per_token)] == [float, float]


def test_tables_that_lead_below_zero_are_refused() -> None:
    falling = LinearFit(5.0, 0.1, 0.01, 0.0).step_times()
    falling.attention_ms[:, :, :, 1] -= 4.0
    with pytest.raises(ValueError, match="8 sequences with 12800 tokens"):
        replace(profile(falling), kv_blocks=1000)


def test_a_complete_grid_of_steps_is_interpolated_through_every_measurement(tmp_path: Path) -> None:
    lines = [f"{line.rsplit(',', 1)[0]},{5 + index % 7}" for index, line in enumerate(grid_of(LinearFit(1)))]
    steps = read_steps(steps_file(tmp_path, lines))
    assert steps.gap() == ""
    times = steps.interpolation()
    for p, n, context, ms in zip(
        steps.single.prefill_tokens.astype(int),
        steps.single.decode_sequences.astype(int),
        steps.single.context_per_sequence.astype(int),
        steps.single.step_ms,
        strict=True,
    ):
        assert step_ms(times, p, 0, p * p, n, n * context, context, n) == pytest.approx(ms, rel=1e-12)


def test_an_incomplete_grid_says_what_it_lacks_and_is_fitted(tmp_path: Path) -> None:
    fit = LinearFit(5.0, 0.1, 0.01, 1e-4)
    lines = [line for line in grid_of(fit) if not line.startswith("64,16,")]
    steps = read_steps(steps_file(tmp_path, lines))
    assert "64 prefill tokens with 16 decoding" in steps.gap()
    with pytest.raises(TableError, match=r"steps\.csv: has no step of 64 prefill.*--method linear"):
        steps.interpolation()
    found = steps.linear_fit()
    assert found.base_ms == pytest.approx(5.0)
    assert found.per_prefill_token_ms == pytest.approx(0.1)
    assert found.per_context_token_ms == pytest.approx(1e-4)
    assert steps.linear_errors().max() < 1e-9


def test_no_coefficient_of_a_fit_is_negative(tmp_path: Path) -> None:
    lines = [f"{p},{n},{c},{50 - n}" for p in (0, 100) for n in (1, 2, 4) for c in (10, 20)]
    fit = read_steps(steps_file(tmp_path, lines)).linear_fit()
    assert min(fit.base_ms, fit.per_prefill_token_ms, fit.per_decode_sequence_ms) >= 0
    assert fit.per_decode_sequence_ms == 0


@pytest.mark.parametrize(
    ("lines", "header", "says"),
    [
        (["1,2,3"], "", r"steps\.csv, line 2: 3 values under a header of 4"),
        (["1,2,3,4", "1,2,3,fast"], "", r"line 3: step_ms is 'fast'.*correct or remove"),
        (["1,2,-3,4"], "", r"line 2: context_per_sequence is '-3'"),
        (["1,2,3,nan"], "", r"line 2: step_ms is 'nan'"),
        (["1,2,3,0"], "", r"measurement 1: step_ms must be more than 0"),
        (["0,0,3,4"], "", r"measurement 1: a step without tokens"),
        ([], "", r"holds no measurement"),
        (["1,2,3"], "prefill_tokens,decode_sequences,step_ms", r"no column 'context_per_sequence'"),
    ],
)
def test_bad_measurements_are_refused_with_file_line_and_remedy(
    tmp_path: Path, lines: list[str], header: str, says: str
) -> None:
    with pytest.raises(TableError, match=says):
        read_steps(steps_file(tmp_path, lines, header))


def test_too_few_steps_for_a_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="vary prefill tokens"):
        read_steps(steps_file(tmp_path, ["8,1,10,5", "16,1,10,6"])).linear_fit()


def test_a_truncated_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "steps.csv.gz"
    path.write_bytes(gzip.compress(b"prefill_tokens,decode_sequences\n" * 99)[:40])
    with pytest.raises(TableError, match="cannot be read as CSV"):
        read_steps(path)


def kernels(folder: Path) -> tuple[Path, Path, Path]:
    """One layer's tables in which each kind of kernel is easy to tell apart, in us."""
    attention = ["prefill_chunk,kv_prefill,n_decode,kv_decode,time_us"]
    attention += [f"0,0,{n},{c},{n * c}" for n in (1, 2) for c in (100, 200)]
    for chunk in (10, 20):
        attention += [f"{chunk},{kp},0,0,{chunk * 10 + kp}" for kp in (0, 100)]
        attention += [
            f"{chunk},{kp},{n},{c},{chunk * 10 + kp + n * c * 2}"
            for kp in (0, 100)
            for n in (1, 2)
            for c in (100, 200)
        ]
    dense = ["layer,tokens,time_us"]
    for layer, us in (("embedding", 1), ("layernorm", 10), ("qkv_proj", 100), ("final_layernorm", 1000)):
        dense += [f"{layer},1,{us}", f"{layer},101,{us * 2}"]
    sampled = [
        "layer,sequences,time_us",
        "lm_head,1,5000",
        "lm_head,3,7000",
        "sampler,1,300",
        "sampler,3,300",
    ]
    paths = (folder / "attention.csv", folder / "dense.csv", folder / "per_sequence.csv")
    for path, lines in zip(paths, (attention, dense, sampled), strict=True):
        path.write_text("\n".join(lines) + "\n")
    return paths


def test_kernels_add_up_over_the_layers_of_a_model(tmp_path: Path) -> None:
    times = kernel_step_times(*kernels(tmp_path), ModelShape(layers=4))
    # Two sequences of 150 tokens: attention 300 us, layernorm twice and qkv_proj once, in 4 layers each.
    expected_us = 4 * (300 + (2 * 10 + 100) * 1.01) + (1 + 1000) * 1.01 + 6000 + 300
    assert step_ms(times, 0, 0, 0, 2, 300, 150, 2) == pytest.approx(expected_us / 1000)
    # Beside a chunk of 10 with a history of 50: 100 + 50 + 600 us.
    expected_us = 4 * (750 + (2 * 10 + 100) * 1.11) + (1 + 1000) * 1.11 + 6000 + 300
    assert step_ms(times, 10, 500, 100, 2, 300, 150, 2) == pytest.approx(expected_us / 1000)
    # A lone sequence beside the smallest chunk costs 2 us a token and layer: what a straggler adds.
    assert times.straggler_ms == pytest.approx(4 * 2 / 1000)


def test_gaps_and_exchanges_are_added_as_stated(tmp_path: Path) -> None:
    tables = kernels(tmp_path)
    plain = kernel_step_times(*tables, ModelShape(layers=4))
    gaps = kernel_step_times(*tables, ModelShape(layers=4, kernel_gap_us=2.0, cpu_overhead_ms=0.5))
    # Attention, qkv_proj and two norms in 4 layers; embedding, final norm, LM head, sampler.
    assert gaps.overhead_ms - plain.overhead_ms == pytest.approx(0.5 + (4 * 4 + 4) * 0.002)
    split = kernel_step_times(
        *tables, ModelShape(4, hidden_size=1000, tensor_parallel=2, link_gb_per_s=10.0, link_latency_us=5.0)
    )
    # Two all-reduces a layer, each two exchanges of half of 2 bytes x 1000 x 51 tokens at 10 GB/s.
    expected_ms = 2 * 4 * 2 * (0.005 + 51 * 1000 * 2 / 2 / 10e6)
    extra = step_ms(split, 50, 0, 2500, 1, 100, 100, 1) - step_ms(plain, 50, 0, 2500, 1, 100, 100, 1)
    assert extra == pytest.approx(expected_ms)


def test_a_chunk_without_decodes_beyond_its_grid_is_extrapolated(tmp_path: Path) -> None:
    attention, dense, sampled = kernels(tmp_path)
    kept = [
        line for line in attention.read_text().splitlines() if not line.startswith(("10,0,2,", "10,100,2,"))
    ]
    attention.write_text("\n".join(kept) + "\n")
    times = kernel_step_times(attention, dense, sampled, ModelShape(1))
    # At a chunk of 10, two sequences are as far from one as one is from none.
    grid = times.attention_ms[1, 0, :, 0]
    assert grid[2] - grid[1] == pytest.approx(grid[1] - grid[0])


def test_kernels_that_do_not_suffice_are_refused(tmp_path: Path) -> None:
    attention, dense, sampled = kernels(tmp_path)
    with pytest.raises(ValueError, match="--layers"):
        ModelShape(layers=0)
    with pytest.raises(ValueError, match="--hidden-size"):
        ModelShape(layers=4, tensor_parallel=2, link_gb_per_s=16.0)
    complete = dense.read_text()
    dense.write_text("layer,tokens,time_us\nqkv_proj,1,5\n")
    with pytest.raises(TableError, match=r"dense\.csv: layer 'qkv_proj' has one size"):
        kernel_step_times(attention, dense, sampled, ModelShape(4))
    dense.write_text(complete)
    attention.write_text("prefill_chunk,kv_prefill,n_decode,kv_decode,time_us\n0,0,1,16,5\n")
    with pytest.raises(TableError, match=r"attention\.csv: needs chunks"):
        kernel_step_times(attention, dense, sampled, ModelShape(4))


@pytest.mark.skipif(not STEPTIME.is_dir(), reason="needs ../shared/data/steptime")
@pytest.mark.parametrize("gpu", ["a100", "h100"])
@pytest.mark.parametrize("model", ["llama3-8b_tp1", "llama3-70b_tp4"])
def test_interpolation_predicts_contexts_left_out_far_better_than_a_line(gpu: str, model: str) -> None:
    steps = read_steps(STEPTIME / f"derived_{gpu}_{model}.csv.gz")
    assert steps.gap() == ""
    left_out = steps.single.context_per_sequence == 1024
    times = replace(steps, single=steps.single.where(~left_out)).interpolation()
    errors = [
        abs(step_ms(times, int(p), 0, 0, int(n), int(n * c), int(c), int(n)) / ms - 1)
        for p, n, c, ms in zip(
            steps.single.prefill_tokens[left_out],
            steps.single.decode_sequences[left_out],
            steps.single.context_per_sequence[left_out],
            steps.single.step_ms[left_out],
            strict=True,
        )
    ]
    assert np.mean(errors) < 0.01 < 0.04 < steps.linear_errors()[left_out].mean()
