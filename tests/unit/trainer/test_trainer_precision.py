"""Which precision a run multiplies in, and what the user is told."""

from collections.abc import Mapping

import pytest
import torch

from rankserve.trainer.config import ConfigError, OptimisationConfig
from rankserve.trainer.training.precision import PrecisionChoice, choose_precision, product_milliseconds

SLOW_BF16 = {"fp32": 25.6, "bf16": 1386.0}
FAST_BF16 = {"fp32": 25.6, "bf16": 12.0}
ALIKE = {"fp32": 25.6, "bf16": 25.0}


@pytest.fixture(autouse=True)
def cpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)


def gpu(
    monkeypatch: pytest.MonkeyPatch, *, capability: tuple[int, int], native: bool, emulated: bool = True
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: native or (including_emulation and emulated),
    )


def never() -> Mapping[str, float]:
    raise AssertionError("nothing is to be timed")


def test_auto_is_the_default() -> None:
    assert OptimisationConfig().precision == "auto"


@pytest.mark.parametrize(("times", "used"), [(SLOW_BF16, "fp32"), (FAST_BF16, "bf16"), (ALIKE, "fp32")])
def test_auto_takes_bf16_where_the_cpu_multiplies_it_faster(times: Mapping[str, float], used: str) -> None:
    choice = choose_precision("auto", timing=lambda: times)
    assert (choice.used, choice.asked, choice.milliseconds, choice.warning) == (used, "auto", times, "")
    assert f"{times['fp32']:.2f} ms in fp32 and {times['bf16']:.2f} ms in bf16" in str(choice)


def test_an_explicit_slow_precision_is_obeyed_with_a_warning() -> None:
    choice = choose_precision("bf16", timing=lambda: SLOW_BF16)
    assert choice.used == "bf16"
    assert "54.1 times slower than fp32" in choice.warning
    assert 'use precision = "auto" or "fp32"' in choice.warning


def test_an_explicit_precision_that_is_not_slow_is_obeyed_in_silence() -> None:
    assert choose_precision("bf16", timing=lambda: FAST_BF16).warning == ""
    assert choose_precision("fp32", timing=never) == PrecisionChoice("fp32", "fp32", "asked for", {})


def test_an_interrupted_run_goes_on_as_it_began_whatever_is_faster_now() -> None:
    assert choose_precision("auto", begun_with="fp32", timing=never).used == "fp32"
    resumed = choose_precision("auto", begun_with="bf16", timing=lambda: SLOW_BF16)
    assert (resumed.used, resumed.asked) == ("bf16", "auto")
    assert "54.1 times slower" in resumed.warning


@pytest.mark.parametrize(
    ("capability", "native", "used"),
    [((9, 0), True, "bf16"), ((7, 5), False, "fp16"), ((6, 1), False, "fp32")],
)
def test_auto_on_a_gpu_goes_by_what_it_has(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], native: bool, used: str
) -> None:
    gpu(monkeypatch, capability=capability, native=native)
    choice = choose_precision("auto", timing=never)
    assert (choice.used, choice.warning) == (used, "")


def test_what_a_gpu_emulates_is_obeyed_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu(monkeypatch, capability=(7, 5), native=False)
    assert "emulates bf16" in choose_precision("bf16", timing=never).warning
    assert choose_precision("fp16", timing=never).warning == ""


def test_a_precision_that_the_device_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match='"fp16" needs a GPU'):
        choose_precision("fp16", timing=never)
    gpu(monkeypatch, capability=(7, 5), native=False, emulated=False)
    with pytest.raises(ConfigError, match='"bf16" is not known'):
        choose_precision("bf16", timing=never)


def test_the_trial_times_both_precisions() -> None:
    times = product_milliseconds()
    assert set(times) == {"fp32", "bf16"}
    assert min(times.values()) > 0
