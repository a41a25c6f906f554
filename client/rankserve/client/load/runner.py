"""Sends a workload to a server at its planned times and records what became of each request."""

import asyncio
import logging
import uuid
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime

from rankserve.client._client import AsyncSchedulerClient
from rankserve.client._exceptions import DeadlineExceeded, RankServeError
from rankserve.client._types import Event, Request
from rankserve.client.load.arrivals import Arrivals
from rankserve.client.load.lane import Lane, Stream
from rankserve.client.load.lateness import sender_lateness_p99
from rankserve.client.load.machine import describe_machine, package_versions
from rankserve.client.load.options import LoadOptions, Progress
from rankserve.client.load.preparation import prepare, to_request
from rankserve.client.load.tracker import TrackedRequest, Tracker
from rankserve.progress import Stage, stage
from rankserve.records.results import Run, RunHeader
from rankserve.records.workload import WorkloadRecord

log = logging.getLogger(__name__)

EXPIRY_CHECK_S = 0.1
# A sender that is behind lets the streams work after this many requests.
SENDS_PER_TURN = 64
# The server is told of a request's timeout and ends it itself; the client does so only for a lost server.
SERVER_GRACE_S = 1.0

OnProgress = Callable[[Progress], None]


async def run_load(
    client: AsyncSchedulerClient,
    workload: Sequence[WorkloadRecord],
    arrivals: Arrivals,
    options: LoadOptions | None = None,
    *,
    on_progress: OnProgress | None = None,
) -> Run:
    """Sends every record at its time, waits for all results, and returns them in the order sent.

    Open loop: neither a slow answer nor a server slow to read delays the next request. A failed request is
    recorded with its code as the outcome; nothing that a request does makes this raise. How late the sender
    itself was stands in the header, as ``arrivals["sender_lateness_p99_s"]``. Reports a stage of
    ``rankserve.progress``.

    Args:
        client: where to send.
        workload: what to send. Requests get fresh ids, so that a workload can be sent again to one server,
            and a sampling seed that depends on the record's id alone.
        arrivals: when to send.
        options: how to send.
        on_progress: called after each look at the server's counters.

    Raises:
        ValueError: the workload is empty or the arrivals do not fit it.
        RankServeError: the server could not be reached before the start.
    """
    return await _LoadRun(client, workload, arrivals, options or LoadOptions(), on_progress).run()


class _LoadRun:
    def __init__(
        self,
        client: AsyncSchedulerClient,
        workload: Sequence[WorkloadRecord],
        arrivals: Arrivals,
        options: LoadOptions,
        on_progress: OnProgress | None,
    ) -> None:
        if not workload:
            raise ValueError("the workload is empty: there is nothing to send")
        self._client = client
        self._arrivals = arrivals
        self._options = options
        self._on_progress = on_progress
        run_id = uuid.uuid4().hex[:12]
        workload = prepare(workload, options)
        planned = sorted(zip(arrivals.times(workload), range(len(workload)), workload, strict=True))
        self._tracker = Tracker(
            {f"{run_id}.{place}": TrackedRequest(record, time_s) for time_s, place, record in planned}
        )
        self._all_ended = asyncio.Event()
        self._queue_depth: list[tuple[float, int]] = []
        self._loop = asyncio.get_running_loop()
        self._start = 0.0

    async def run(self) -> Run:
        await self._client.wait_ready()
        self._stats = await self._client.stats()
        with stage(f"load under {self._stats.policy}", len(self._tracker.requests), "requests") as load:
            return await self._run(load)

    async def _run(self, load: Stage) -> Run:
        requests = [
            to_request(request_id, tracked.record, self._options)
            for request_id, tracked in self._tracker.requests.items()
        ]
        async with AsyncExitStack() as stack:
            lanes = [
                Lane(await stack.enter_async_context(self._submit()), self._note, self._fail)
                for _ in range(self._options.streams)
            ]
            started_at = datetime.now(UTC)
            self._start = self._loop.time()
            async with asyncio.TaskGroup() as group:
                work = [self._send(requests, lanes), self._watch_queue(load), self._expire()]
                work += [lane.write() for lane in lanes] + [lane.read() for lane in lanes]
                tasks = [group.create_task(task) for task in work]
                await self._wait_for_all()
                for task in tasks:
                    task.cancel()
        await self._look_at_queue(load)
        return Run(self._header(started_at), tuple(t.result() for t in self._tracker.requests.values()))

    def _submit(self) -> Stream:
        retry = self._options.retry
        return self._client.submit() if retry is None else self._client.submit(retry=retry)

    async def _send(self, requests: list[Request], lanes: list[Lane]) -> None:
        planned = [tracked.planned_s for tracked in self._tracker.requests.values()]
        for place, (request, due_s) in enumerate(zip(requests, planned, strict=True)):
            if (early_s := due_s - self._now()) > 0:
                await asyncio.sleep(early_s)
            elif place % SENDS_PER_TURN == 0:
                await asyncio.sleep(0)
            self._tracker.mark_sent(request.id, self._now())
            lanes[place % len(lanes)].send(request)
        for lane in lanes:
            lane.done_sending()

    async def _watch_queue(self, load: Stage) -> None:
        while True:
            await self._look_at_queue(load)
            await asyncio.sleep(self._options.stats_interval_s)

    async def _look_at_queue(self, load: Stage) -> None:
        try:
            self._stats = await self._client.stats()
        except RankServeError as error:
            log.warning("no queue depth at %.1f s: %s", self._now(), error)
            return
        self._queue_depth.append((round(self._now(), 4), self._stats.waiting))
        tracker, failed = self._tracker, self._tracker.failed
        load.reach(
            tracker.finished + failed,
            f"{tracker.sent:,} sent, {self._stats.waiting:,} waiting"
            + (f", {failed:,} failed" if failed else ""),
        )
        if self._on_progress is not None:
            self._on_progress(
                Progress(
                    elapsed_s=self._now(),
                    total=len(tracker.requests),
                    sent=tracker.sent,
                    finished=tracker.finished,
                    failed=failed,
                    waiting=self._stats.waiting,
                )
            )

    async def _expire(self) -> None:
        timeout_s = self._options.request_timeout_s
        while timeout_s is not None:
            await asyncio.sleep(EXPIRY_CHECK_S)
            self._tracker.expire(timeout_s + SERVER_GRACE_S, self._now())
            self._check_end()

    async def _wait_for_all(self) -> None:
        bound_s = self._options.total_timeout_s
        try:
            async with asyncio.timeout(bound_s):
                await self._all_ended.wait()
        except TimeoutError:
            error = DeadlineExceeded(f"the run was stopped after {bound_s:g} s")
            self._tracker.fail_open(error, self._now())

    def _note(self, event: Event) -> None:
        self._tracker.note(event, self._now())
        self._check_end()

    def _fail(self, request_id: str, error: RankServeError) -> None:
        self._tracker.fail(request_id, error, self._now())
        self._check_end()

    def _check_end(self) -> None:
        if self._tracker.done:
            self._all_ended.set()

    def _now(self) -> float:
        return self._loop.time() - self._start

    def _header(self, started_at: datetime) -> RunHeader:
        lateness_s = sender_lateness_p99(self._tracker.requests.values())
        stats = self._stats
        return RunHeader(
            policy=stats.policy,
            engine=stats.engine,
            ranker_version=stats.ranker_version,
            workload=self._options.workload_name,
            arrivals={**self._arrivals.describe(), "sender_lateness_p99_s": round(lateness_s, 6)},
            seed=self._arrivals.seed,
            time_scale=stats.time_scale,
            max_sequences=stats.max_sequences,
            max_batched_tokens=stats.max_batched_tokens,
            kv_blocks=stats.kv_blocks_total,
            engine_lag=stats.engine_lag,
            queue_depth=tuple(self._queue_depth),
            started_at=started_at.isoformat(timespec="seconds"),
            versions=package_versions(),
            machine=describe_machine(),
        )
