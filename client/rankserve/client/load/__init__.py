"""Load generation in an open loop: answers never pace the sending."""

from rankserve.client.load.arrivals import Arrivals, Burst, DrawnArrivals, Gamma, OnOff, Poisson, Recorded
from rankserve.client.load.options import LoadOptions, Progress
from rankserve.client.load.runner import run_load

__all__ = [
    "Arrivals",
    "Burst",
    "DrawnArrivals",
    "Gamma",
    "LoadOptions",
    "OnOff",
    "Poisson",
    "Progress",
    "Recorded",
    "run_load",
]
