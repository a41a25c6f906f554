"""RankServe within vLLM: a scheduler class and a middleware, both named on vLLM's command line.

    vllm serve MODEL --scheduler-cls rankserve.vllm.RankedScheduler \\
        --middleware rankserve.vllm.ScoreMiddleware

Each is imported when it is asked for: the engine's process has no use for a ranker, the API's none for a
scheduler. `docs/engines.md` says which to use and what can be set.
"""

from importlib import import_module

_MODULES = {
    "RankedScheduler": "rankserve.vllm.scheduler",
    "ScoreMiddleware": "rankserve.vllm.middleware",
}

__all__ = ["RankedScheduler", "ScoreMiddleware"]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
