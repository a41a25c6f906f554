"""When requests arrive. All return ascending seconds, float64 [count]."""

import csv
import gzip
from pathlib import Path

import numpy as np
from benchmarks.experiments.prompts import Integers, Numbers
from numpy.random import Generator


def poisson(draw: Generator, count: int, rate: float) -> Numbers:
    """Independent arrivals, ``rate`` a second on average."""
    return np.cumsum(draw.exponential(1 / rate, count))


def gamma(draw: Generator, count: int, rate: float, variation: float) -> Numbers:
    """Gaps between arrivals with a coefficient of variation; 1 is Poisson, more comes in bursts."""
    shape = variation**-2
    return np.cumsum(draw.gamma(shape, 1 / (rate * shape), count))


def on_off(draw: Generator, count: int, on: tuple[float, float], off: tuple[float, float]) -> Numbers:
    """Poisson at two rates in turn.

    Args:
        draw: source of randomness.
        count: arrivals.
        on: (rate per second, seconds) of the busy phase, which comes first.
        off: the same of the quiet one.
    """
    # Unit-rate arrivals, stretched by the inverse of the expected number of arrivals until each moment.
    units = np.cumsum(draw.exponential(1.0, count))
    busy, quiet = on[0] * on[1], off[0] * off[1]
    cycle, within = np.divmod(units, busy + quiet)
    seconds = np.where(within < busy, within / on[0], on[1] + (within - busy) / off[0])
    return cycle * (on[1] + off[1]) + seconds


def read_trace(path: Path) -> tuple[Numbers, Integers, Integers]:
    """Arrival seconds, prompt tokens and output tokens of a recorded service, in order of arrival.

    Lengths of 0 count as 1.
    """
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        rows = [
            (float(row["arrival_s"]), int(row["input_tokens"]), int(row["output_tokens"]))
            for row in csv.DictReader(file)
        ]
    rows.sort(key=lambda row: row[0])
    arrival_s, inputs, outputs = zip(*rows, strict=True)
    return (
        np.array(arrival_s),
        np.maximum(np.array(inputs, np.int64), 1),
        np.maximum(np.array(outputs, np.int64), 1),
    )
