"""Score to expected output length."""

from bisect import bisect_right
from collections.abc import Sequence

from rankserve.records.ranker_version import Calibration


def expected_tokens(calibration: Calibration, score: float) -> tuple[float, float]:
    """Expected output tokens at a score: (p50, p90).

    Piecewise linear between the calibration's knots, constant beyond its ends.
    """
    scores = calibration.scores
    right = bisect_right(scores, score)
    if right == 0:
        return calibration.tokens_p50[0], calibration.tokens_p90[0]
    if right == len(scores):
        return calibration.tokens_p50[-1], calibration.tokens_p90[-1]
    weight = (score - scores[right - 1]) / (scores[right] - scores[right - 1])
    return _between(calibration.tokens_p50, right, weight), _between(calibration.tokens_p90, right, weight)


def _between(values: Sequence[float], right: int, weight: float) -> float:
    return values[right - 1] + weight * (values[right] - values[right - 1])
