"""The scheduler class for vLLM's `--scheduler-cls`. The only module that imports vLLM.

It changes one thing: what kind of queue the waiting requests are in. Which of them fit, how the batch is
packed and who yields when KV blocks run out stay vLLM's.
"""

import inspect
import logging
import multiprocessing
import time
from typing import Any

from vllm import __version__ as vllm_version
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.request_queue import RequestQueue
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import Request, RequestStatus

from rankserve.server.scheduling.fair_share import FairShare
from rankserve.server.scheduling.starvation import StarvationSettings
from rankserve.vllm.settings import VllmSettings
from rankserve.vllm.versions import check_members, check_version
from rankserve.vllm.waiting_queue import WaitingQueue

# One that vLLM shows: its own are below the name "vllm", and the root logger has no handler.
_log = logging.getLogger("vllm.rankserve")


class _Queue(WaitingQueue[Request], RequestQueue):
    """`WaitingQueue` as what vLLM takes it for."""


class _Ranked(Scheduler):
    """Puts its own queue where vLLM made one, and tells it what happens."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        settings = VllmSettings.from_environment()
        check_version(vllm_version, allow_untested=settings.allow_untested)
        check_members(vllm_version, _missing_from_classes())
        super().__init__(*args, **kwargs)
        check_members(vllm_version, _missing_from(self))
        policy = settings.make_policy()
        self._rankserve_queue = _Queue(
            policy,
            _has_started,
            time.monotonic,
            StarvationSettings(
                threshold_steps=settings.starvation_threshold_steps,
                max_wait_s=settings.max_wait_ms / 1000 if settings.max_wait_ms else None,
            ),
            FairShare(enabled=settings.fair_share),
        )
        self.waiting: RequestQueue = self._rankserve_queue
        _log.info("RankServe orders the waiting requests: policy %s", policy.name)

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        self._rankserve_queue.begin_step()
        output = super().schedule(*args, **kwargs)
        self._rankserve_queue.end_step()
        return output

    def update_from_output(self, *args: Any, **kwargs: Any) -> Any:
        outputs = super().update_from_output(*args, **kwargs)
        queue = self._rankserve_queue
        for of_client in outputs.values():
            for output in of_client.outputs:
                queue.produced(output.request_id, len(output.new_token_ids))
                if output.finish_reason is not None:
                    queue.ended(output.request_id, finished=True)
        queue.forget_all_but(self.requests)
        return outputs

    def finish_requests(self, *args: Any, **kwargs: Any) -> Any:
        ended = super().finish_requests(*args, **kwargs)
        for request in ended:
            self._rankserve_queue.ended(request.request_id, finished=False)
        return ended


class RankedSyncScheduler(_Ranked):
    """For vLLM without async scheduling, as on CPUs."""


class RankedAsyncScheduler(_Ranked, AsyncScheduler):
    """For vLLM with it."""


class RankedScheduler:
    """vLLM's scheduler, whichever it would take, with its waiting requests in RankServe's order.

    Set up by environment variables; see `VllmSettings`.

    Raises:
        UnsupportedVllmError: this is another vLLM than those it was tested with.
        ValueError: names the variable that is wrong.
    """

    def __new__(cls, vllm_config: Any, *args: Any, **kwargs: Any) -> Any:
        kind = RankedAsyncScheduler if vllm_config.scheduler_config.async_scheduling else RankedSyncScheduler
        try:
            return kind(vllm_config, *args, **kwargs)
        except Exception:
            _end_workers()
            raise


def _has_started(request: Request) -> bool:
    return bool(request.status == RequestStatus.RUNNING)


def _end_workers() -> None:
    """vLLM's engine has its workers by now, and would wait for their end, on some machines for ever."""
    for child in multiprocessing.active_children():
        if child.name.startswith("VllmWorker"):
            child.kill()


def _missing_from_classes() -> list[str]:
    """What is relied on of vLLM's classes and not there, or there and not known."""
    needed = {
        Scheduler: ("schedule", "update_from_output", "finish_requests", "add_request"),
        Request: ("num_output_tokens",),
        RequestStatus: ("RUNNING",),
    }
    missing = [
        f"{owner.__name__}.{name}"
        for owner, names in needed.items()
        for name in names
        if not hasattr(owner, name)
    ]
    taken = inspect.signature(Request.__init__).parameters
    missing += [
        f"Request({name})" for name in ("request_id", "priority", "sampling_params") if name not in taken
    ]
    abstract: frozenset[str] = getattr(RequestQueue, "__abstractmethods__", frozenset())
    return missing + [f"RequestQueue.{name}" for name in abstract if not hasattr(WaitingQueue, name)]


def _missing_from(scheduler: Scheduler) -> list[str]:
    """What is relied on of a new scheduler and not as it should be."""
    missing = [
        f"Scheduler.{name}" for name in ("waiting", "running", "requests") if not hasattr(scheduler, name)
    ]
    queue = getattr(scheduler, "waiting", None)
    if not isinstance(queue, RequestQueue) or len(queue):
        missing.append("an empty RequestQueue in Scheduler.waiting")
    return missing
