"""What a request carries into vLLM's engine within `vllm_xargs`, which become sampling parameters."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PREFIX = "rankserve_"
SCORE = "rankserve_score"
EXPECTED_TOKENS = "rankserve_expected_tokens"
EXPECTED_TOKENS_P90 = "rankserve_expected_tokens_p90"
TENANT = "rankserve_tenant"

_LONGEST_TENANT = 128


@dataclass(slots=True, frozen=True)
class Marks:
    """What was predicted of a request, and whose it is.

    Attributes:
        score: higher = sooner; None where there is none.
        expected_tokens: median output length to expect; infinite where unknown.
        expected_tokens_p90: its 90th percentile; likewise.
        tenant: who shares fairly with others; empty if not known.
    """

    score: float | None = None
    expected_tokens: float = math.inf
    expected_tokens_p90: float = math.inf
    tenant: str = ""


def read_marks(extra_args: Mapping[str, Any] | None) -> Marks:
    """Reads them, leaving out what is not of the right kind: nothing of a request may stop the engine."""
    if not extra_args:
        return Marks()
    tenant = extra_args.get(TENANT)
    return Marks(
        _number(extra_args.get(SCORE)),
        _length(extra_args.get(EXPECTED_TOKENS)),
        _length(extra_args.get(EXPECTED_TOKENS_P90)),
        tenant[:_LONGEST_TENANT] if isinstance(tenant, str) else "",
    )


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _length(value: object) -> float:
    number = _number(value)
    return math.inf if number is None or number < 0 else number
