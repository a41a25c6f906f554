"""The options of `load` and `simulate` that say when requests arrive."""

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rankserve.client.load import DrawnArrivals


def drawn_arrivals(
    *, rate: float | None, burst: bool, gamma_cv: float | None, on_off: str | None, seed: int
) -> "DrawnArrivals | None":
    """The arrival process that was asked for; None for the times recorded in the workload.

    Raises:
        typer.BadParameter: options that contradict each other.
        ValueError: a value that cannot be.
    """
    from rankserve.client.load import Burst, Gamma, OnOff, Poisson

    if (rate is not None) + burst + (on_off is not None) > 1:
        raise typer.BadParameter("say either --rate or --burst or --on-off")
    if gamma_cv is not None and rate is None:
        raise typer.BadParameter("--gamma-cv needs --rate, the requests per second on average")
    if burst:
        return Burst()
    if on_off is not None:
        return OnOff(*_phases(on_off), seed=seed)
    if rate is None:
        return None
    return Poisson(rate, seed) if gamma_cv is None else Gamma(rate, gamma_cv, seed)


def _phases(text: str) -> tuple[float, float, float, float]:
    """For example "60:20,15:40": 60 requests/s for 20 s, then 15 requests/s for 40 s, and again."""
    try:
        (high_rate, high_s), (low_rate, low_s) = (phase.split(":") for phase in text.split(","))
        return float(high_rate), float(high_s), float(low_rate), float(low_s)
    except ValueError:
        raise ValueError(f"--on-off is RATE:SECONDS,RATE:SECONDS such as 60:20,15:40, got {text!r}") from None
