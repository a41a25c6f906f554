"""The precision of training's matrix products: bf16 only where the device multiplies it faster than fp32.

A CPU without bf16 instructions emulates it: an AMD EPYC with AVX2 alone took 54 times as long as in fp32.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch

from rankserve.trainer.config import ConfigError, Precision

Used = Literal["fp32", "bf16", "fp16"]
# Below that, fewer digits are not worth it.
_WORTH_IT = 1.1
_SHAPE = (192, 384, 1536)
_ROUNDS = 5
# Of bf16 products; one took 180 ms where it is emulated.
_ENOUGH_S = 0.4


@dataclass(slots=True, frozen=True)
class PrecisionChoice:
    """What a run uses, and why.

    Attributes:
        used: of the matrix products.
        asked: what the configuration says.
        why: in a few words.
        milliseconds: that the trial product took in each precision; empty if none was made.
        warning: what to tell the user; empty if nothing.
    """

    used: Used
    asked: Precision
    why: str
    milliseconds: Mapping[str, float]
    warning: str = ""

    def __str__(self) -> str:
        return f"precision {self.used} (asked for: {self.asked}): {self.why}"


@cache
def product_milliseconds() -> dict[str, float]:
    """The least time of a product of 192 x 384 and 384 x 1536 on the CPU in fp32 and bf16, within 1 s."""
    rows, inner, columns = _SHAPE
    operands = {
        name: (torch.ones(rows, inner, dtype=kind), torch.ones(inner, columns, dtype=kind))
        for name, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16))
    }
    found: dict[str, list[float]] = {name: [] for name in operands}
    with torch.inference_mode():
        while len(found["bf16"]) < _ROUNDS and sum(found["bf16"]) < _ENOUGH_S:
            for name, (left, right) in operands.items():
                started = time.perf_counter()
                torch.mm(left, right)
                found[name].append(time.perf_counter() - started)
    return {name: round(1e3 * min(seconds), 3) for name, seconds in found.items()}


def choose_precision(
    asked: Precision,
    *,
    begun_with: Used | None = None,
    timing: Callable[[], Mapping[str, float]] = product_milliseconds,
) -> PrecisionChoice:
    """The precision of a run on this device.

    Args:
        asked: "auto" for the fastest.
        begun_with: what an interrupted run used, which it goes on with.
        timing: milliseconds of the same product in "fp32" and "bf16" on the CPU.

    Raises:
        ConfigError: the device lacks the precision asked for.
    """
    wanted = begun_with or asked
    why = "as the run began" if begun_with else "asked for"
    if torch.cuda.is_available():
        return _on_cuda(asked, wanted, why)
    if wanted == "fp16":
        raise ConfigError(
            'optimisation.precision = "fp16" needs a GPU, and torch sees none: use "auto" or "fp32"'
        )
    if wanted == "fp32":
        return PrecisionChoice("fp32", asked, why, {})
    if torch.accelerator.is_available():
        used: Used = "fp32" if wanted == "auto" else wanted
        return PrecisionChoice(used, asked, why if wanted != "auto" else "no CUDA", {})
    times = timing()
    measured = (
        f"a product of {_SHAPE[0]} x {_SHAPE[1]} and {_SHAPE[1]} x {_SHAPE[2]} takes "
        f"{times['fp32']:.2f} ms in fp32 and {times['bf16']:.2f} ms in bf16 on this CPU"
    )
    if wanted == "auto":
        faster = times["fp32"] > _WORTH_IT * times["bf16"]
        return PrecisionChoice("bf16" if faster else "fp32", asked, measured, times)
    ratio = times["bf16"] / times["fp32"]
    warning = (
        f'bf16 is {ratio:.1f} times slower than fp32 here ({measured}): use precision = "auto" or "fp32"'
        if ratio > 1
        else ""
    )
    return PrecisionChoice("bf16", asked, f"{why}; {measured}", times, warning)


def _on_cuda(asked: Precision, wanted: Precision, why: str) -> PrecisionChoice:
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    tensor_cores = torch.cuda.get_device_capability() >= (7, 0)
    warning = ""
    if wanted == "auto":
        wanted = "bf16" if native else "fp16" if tensor_cores else "fp32"
        why = (
            "this GPU has bf16"
            if native
            else "this GPU has no bf16, but fp16"
            if tensor_cores
            else "this GPU is fastest in it"
        )
    elif wanted == "bf16" and not torch.cuda.is_bf16_supported():
        raise ConfigError(
            'optimisation.precision = "bf16" is not known to this GPU: use "auto", "fp16" or "fp32"'
        )
    elif (wanted == "bf16" and not native) or (wanted == "fp16" and not tensor_cores):
        warning = f'this GPU emulates {wanted}, which is slower than fp32: use precision = "auto" or "fp32"'
    return PrecisionChoice(wanted, asked, why, {}, warning)
