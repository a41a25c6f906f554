"""On the PYTHONPATH of vLLM's processes: waiting for each other leaves the cores to those who work.

vLLM's processes wait for each other in a loop of `os.sched_yield`. On kernels where that returns at once, as
on the machine of docs/real-engine.md, they take a core each and streams stall for seconds.
"""

import os
import time


def _yield_the_core() -> None:
    time.sleep(5e-5)


os.sched_yield = _yield_the_core
