"""Following requests over lost connections, async."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any

import grpc

from rankserve.client._channel import Metadata
from rankserve.client._config import Retry
from rankserve.client._convert import events_from_proto
from rankserve.client._exceptions import ConnectionFailed, RankServeError, Unavailable
from rankserve.client._status import from_rpc_error
from rankserve.client._types import Event
from rankserve.client._watch_ledger import Incoming, Unreachable, WatchLedger


class AsyncWatch:
    """Watches requests at every replica until each has had its terminal event.

    Args:
        methods: the Watch method of each replica.
        metadata: sent with each call.
        target: for messages.
        retry: how long to wait between attempts.
        patience_s: how long a replica may be out of reach.
    """

    def __init__(
        self,
        methods: Sequence[Callable[..., Any]],
        metadata: Metadata,
        target: str,
        retry: Retry,
        patience_s: float,
    ) -> None:
        self._methods = methods
        self._metadata = metadata
        self._target = target
        self._retry = retry
        self._patience_s = patience_s
        # A consumer that is slow slows the server down, which bounds what waits for it.
        self._incoming: asyncio.Queue[tuple[int, Incoming]] = asyncio.Queue(16)

    async def events(self, positions: Mapping[str, int]) -> AsyncGenerator[Event, None]:
        ledger = WatchLedger(positions, len(self._methods))
        followers = [
            asyncio.ensure_future(self._follow(ledger, source, ids))
            for ids in ledger.chunks()
            for source in range(len(self._methods))
        ]
        try:
            while not ledger.done:
                source, incoming = await self._incoming.get()
                for event in ledger.read(source, incoming):
                    yield event
                self._incoming.task_done()
        finally:
            for follower in followers:
                follower.cancel()
        ledger.check_end()

    async def _follow(self, ledger: WatchLedger, source: int, ids: Sequence[str]) -> None:
        clock = asyncio.get_running_loop().time
        failures, lost_at_s = 0, None
        while (wanted := ledger.wanted(source, ids)).positions:
            error: RankServeError = ConnectionFailed(f"the server at {self._target} ended the stream")
            call = self._methods[source](wanted, metadata=self._metadata)
            try:
                async for response in call:
                    failures, lost_at_s = 0, None
                    await self._incoming.put((source, list(events_from_proto(response.events))))
            except grpc.RpcError as problem:
                error = from_rpc_error(problem, self._target)
            finally:
                call.cancel()
            # What was read counts only once the consumer has it.
            await self._incoming.join()
            if not ledger.wanted(source, ids).positions:
                return
            if not isinstance(error, Unavailable):
                await self._incoming.put((source, error))
                return
            lost_at_s = lost_at_s or clock()
            if clock() - lost_at_s >= self._patience_s:
                await self._incoming.put((source, Unreachable(ids, error)))
                return
            failures += 1
            await asyncio.sleep(self._retry.backoff_s(failures))
