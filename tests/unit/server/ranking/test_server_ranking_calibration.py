import pytest

from rankserve.records.ranker_version import Calibration
from rankserve.server.ranking.calibration import expected_tokens

CALIBRATION = Calibration((-2.0, 0.0, 1.0), (300.0, 100.0, 20.0), (600.0, 300.0, 60.0))


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (-2.0, (300.0, 600.0)),
        (0.0, (100.0, 300.0)),
        (1.0, (20.0, 60.0)),
        (-1.0, (200.0, 450.0)),
        (0.25, (80.0, 240.0)),
        (-99.0, (300.0, 600.0)),
        (99.0, (20.0, 60.0)),
    ],
)
def test_linear_between_knots_and_constant_beyond(score: float, expected: tuple[float, float]) -> None:
    assert expected_tokens(CALIBRATION, score) == pytest.approx(expected)


def test_a_single_knot_is_a_constant() -> None:
    calibration = Calibration((0.0,), (50.0,), (90.0,))
    assert {expected_tokens(calibration, score) for score in (-1.0, 0.0, 1.0)} == {(50.0, 90.0)}
