"""A run of a collection against an endpoint, from the first request to the last or to Ctrl-C."""

import asyncio
import random
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field

from rankserve.progress import stage
from rankserve.trainer.collection.collection import Collection
from rankserve.trainer.collection.endpoint import Endpoint
from rankserve.trainer.collection.errors import CollectionError
from rankserve.trainer.collection.progress import Progress, describe
from rankserve.trainer.collection.prompts import Prompt
from rankserve.trainer.collection.retries import Backoff, Retrying
from rankserve.trainer.collection.runner import Runner


@dataclass(slots=True, frozen=True)
class JobOptions:
    """How to ask, which changes no answer.

    Attributes:
        url: of the endpoint, as in ``http://127.0.0.1:8000/v1``.
        api_key: empty for none; not shown.
        concurrency: requests at a time.
        timeout_s: for a whole request.
        backoff: between tries.
        stop_after: samples that fail one after the other until the run stops.
    """

    url: str
    api_key: str = field(default="", repr=False)
    concurrency: int = 16
    timeout_s: float = 600.0
    backoff: Backoff = field(default_factory=Backoff)
    stop_after: int = 20


@dataclass(slots=True, frozen=True)
class JobResult:
    """How a run ended.

    Attributes:
        progress: its counts.
        retries: requests sent again after a failure.
        stopped: why it ended before its end; empty if it did not.
        interrupted: by Ctrl-C or SIGTERM.
    """

    progress: Progress
    retries: int
    stopped: str
    interrupted: bool


def pilot_samples(collection: Collection, prompts: int, generator: random.Random) -> list[tuple[Prompt, int]]:
    """The first sample of this many prompts drawn at random, as far as it is still to ask."""
    drawn = generator.sample(collection.prompts, min(prompts, len(collection.prompts)))
    return list(collection.pending(drawn, samples=1))


def run_job(collection: Collection, options: JobOptions, pending: Sequence[tuple[Prompt, int]]) -> JobResult:
    """Asks for samples and records them. Recorded samples stay, however it ends.

    Raises:
        CollectionError: the options name no endpoint. What stops the run later is in the result.
    """
    endpoint = Endpoint(
        options.url,
        collection.sampling,
        api_key=options.api_key,
        timeout_s=options.timeout_s,
        connections=options.concurrency,
    )
    # Jitter is there to differ from run to run.
    retrying = Retrying(endpoint.ask, options.backoff, random.Random())
    stopped, interrupted = "", False
    try:
        with stage("asking", len(pending), "samples") as asking:

            def report(progress: Progress) -> None:
                note = describe(progress, retrying.retried, retrying.last_reason)
                asking.reach(progress.total - progress.left, note)

            runner = Runner(
                retrying.ask,
                collection.log,
                concurrency=options.concurrency,
                stop_after=options.stop_after,
                on_progress=report,
            )
            asyncio.run(_run(endpoint, runner, pending))
    except (KeyboardInterrupt, asyncio.CancelledError):
        stopped, interrupted = "interrupted", True
    except (CollectionError, OSError) as error:
        stopped = str(error)
    return JobResult(runner.progress, retrying.retried, stopped, interrupted)


async def _run(endpoint: Endpoint, runner: Runner, pending: Sequence[tuple[Prompt, int]]) -> None:
    task = asyncio.current_task()
    assert task is not None
    # SIGINT is asyncio's own business; a scheduler that ends the process politely deserves the same.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with endpoint:
        await runner.run(pending)
