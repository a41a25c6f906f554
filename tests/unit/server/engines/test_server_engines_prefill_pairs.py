"""What attention costs within a prompt, from steps with several prompts."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from rankserve.server.engines.simulated.csv_table import TableError
from rankserve.server.engines.simulated.step_measurements import read_steps
from rankserve.server.engines.simulated.step_time import step_ms

PAIR_MS = 1e-4


def with_prompts(tokens: int, prompts: int, sequences: int, context: int) -> float:
    """A step of an LLM whose tokens attend to those before them in their own prompts, in ms."""
    pairs = tokens**2 / prompts / 2 if prompts else 0
    return 5 + 0.1 * tokens + sequences * (0.2 + 1e-4 * context) + PAIR_MS * pairs


def steps_with_prompts(several: Sequence[tuple[int, int, int, int]]) -> list[str]:
    single = [(tokens, 1, 0, 0) for tokens in (64, 256, 1024)]
    single += [(tokens, 1, n, c) for tokens in (0, 64, 256, 1024) for n in (1, 2, 16) for c in (128, 1024)]
    return [f"{p},{k},{n},{c},{with_prompts(p, k, n, c)!r}" for p, k, n, c in (*single, *several)]


def steps_file(folder: Path, lines: list[str]) -> Path:
    path = folder / "steps.csv"
    path.write_text(
        "\n".join(["prefill_tokens,prompts,decode_sequences,context_per_sequence,step_ms", *lines])
    )
    return path


def test_steps_with_several_prompts_tell_what_attention_within_one_costs(tmp_path: Path) -> None:
    lines = steps_with_prompts([(1024, 4, 1, 128), (1024, 4, 1, 1024), (512, 2, 0, 0)])
    # That one is between two points, where the grid is linear: it counts little.
    steps = read_steps(steps_file(tmp_path, lines))
    times = steps.interpolation()
    assert times.prefill_pair_ms == pytest.approx(PAIR_MS, rel=0.1)
    for p, n, c, ms in zip(
        *(steps.single.prefill_tokens.astype(int), steps.single.decode_sequences.astype(int)),
        *(steps.single.context_per_sequence.astype(int), steps.single.step_ms),
        strict=True,
    ):
        assert step_ms(times, int(p), 0, int(p) ** 2, int(n), int(n * c), 0, 0) == pytest.approx(ms)
    # 16 prompts of 64 tokens, and the last chunk of one that is four times as long as any measured.
    found = step_ms(times, 1024, 0, 16 * 64**2, 2, 256, 0, 0)
    assert found == pytest.approx(with_prompts(1024, 16, 2, 128), rel=0.01)
    found = step_ms(times, 1024, 3 * 1024**2, 1024**2, 2, 256, 0, 0)
    assert found == pytest.approx(
        with_prompts(4096, 1, 2, 128) - with_prompts(3072, 1, 2, 128) + 5.4, rel=0.05
    )


def test_without_steps_of_several_prompts_they_are_as_long_as_one(tmp_path: Path) -> None:
    times = read_steps(steps_file(tmp_path, steps_with_prompts([]))).interpolation()
    assert times.prefill_pair_ms == 0
    assert step_ms(times, 1024, 0, 16 * 64**2, 2, 256, 0, 0) == pytest.approx(with_prompts(1024, 1, 2, 128))


@pytest.mark.parametrize("ms", [0.001, 1e6])
def test_noise_in_them_makes_no_step_shorter_than_nothing(tmp_path: Path, ms: float) -> None:
    lines = [*steps_with_prompts([]), f"1024,4,1,128,{ms}"]
    times = read_steps(steps_file(tmp_path, lines)).interpolation()
    shares = [step_ms(times, tokens, 0, tokens, 0, 0, 0, 1) for tokens in (1, 64, 1024, 100_000)]
    assert shares[0] > 0
    assert shares == sorted(shares)


def test_more_prompts_than_tokens_are_refused(tmp_path: Path) -> None:
    lines = [*steps_with_prompts([]), "3,4,1,128,7"]
    with pytest.raises(TableError, match="measurement 28: more prompts than prefilled tokens"):
        read_steps(steps_file(tmp_path, lines))
