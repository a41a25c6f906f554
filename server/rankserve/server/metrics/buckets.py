"""Bounds of the histograms: those of vLLM, so that its dashboards and ours read alike."""

REQUEST_LATENCY_S = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0,
                     240.0, 480.0, 960.0, 1920.0, 7680.0)  # fmt: skip
FIRST_TOKEN_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
                 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0)  # fmt: skip
PER_TOKEN_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0,
               40.0, 80.0)  # fmt: skip
# Ours: a score takes a millisecond, or what a burst makes it wait.
SCORE_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


def tokens(longest: int) -> list[int]:
    """1, 2, 5, 10, 20, ... up to the model's longest sequence."""
    bounds: list[int] = []
    unit = 1
    while True:
        for bound in (unit, 2 * unit, 5 * unit):
            if bound > longest:
                return bounds
            bounds.append(bound)
        unit *= 10
