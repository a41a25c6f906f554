"""The server's counters as a message."""

from collections.abc import Callable
from dataclasses import asdict
from time import monotonic

from rankserve.server.dispatcher import Dispatcher
from rankserve.server.engines.contract import EndpointState
from rankserve.server.lifecycle import Lifecycle, State
from rankserve.v1 import scheduler_pb2 as pb

_STATES = {
    State.SERVING: pb.SERVER_STATE_SERVING,
    State.PAUSED: pb.SERVER_STATE_PAUSED,
    State.DRAINING: pb.SERVER_STATE_DRAINING,
    State.FAILED: pb.SERVER_STATE_FAILED,
}

# (ranker version, Kendall's tau-b or None, requests it is computed on)
Accuracy = Callable[[], list[tuple[str, float | None, int]]]


class StatsSource:
    """Reads what `GetStats` answers.

    Attributes:
        open_streams: calls that are open; the services count them.
        slow_clients: streams that were cut since their client did not read.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        lifecycle: Lifecycle,
        accuracy: Accuracy,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.open_streams = 0
        self.slow_clients = 0
        self._dispatcher = dispatcher
        self._lifecycle = lifecycle
        self._accuracy = accuracy
        self._clock = clock
        self._started_s = clock()

    def slow_client(self) -> None:
        """A stream was cut since its client did not read."""
        self.slow_clients += 1

    def read(self) -> pb.GetStatsResponse:
        dispatcher = self._dispatcher
        scheduler, engine, counters = dispatcher.scheduler, dispatcher.engine, dispatcher.counters
        active = dispatcher.ranker.active
        keeps = dispatcher.journal.keeps
        return pb.GetStatsResponse(
            policy=scheduler.policy.name,
            ranker_version=active.reference if active else "",
            engine=engine.name,
            time_scale=engine.time_scale,
            uptime_s=self._clock() - self._started_s,
            scoring=dispatcher.scoring.pending,
            waiting=dispatcher.admission.waiting,
            running=scheduler.running,
            max_sequences=engine.capacity.max_sequences,
            max_batched_tokens=engine.capacity.max_batched_tokens,
            kv_blocks_used=engine.kv_blocks_used,
            kv_blocks_total=engine.capacity.kv_blocks,
            accepted_total=counters.accepted,
            finished_total=counters.finished,
            cancelled_total=counters.cancelled,
            expired_total=counters.expired,
            failed_total=counters.failed,
            refused_total=counters.refused,
            preemptions_total=scheduler.preemptions_total,
            promotions_total=scheduler.promotions_total,
            steps_total=scheduler.steps,
            output_tokens_total=counters.output_tokens,
            neutral_scores_total=dispatcher.ranker.neutral_total,
            engine_lag=engine.lag,
            state=_STATES[self._lifecycle.state],
            state_detail=self._lifecycle.detail,
            waiting_bytes=dispatcher.admission.waiting_bytes,
            open_streams=self.open_streams,
            shed_total=counters.shed,
            slow_clients_total=self.slow_clients,
            journal_live=len(dispatcher.registry.live) if keeps else 0,
            journal_retained=len(dispatcher.registry.ended) if keeps else 0,
            recovered_total=counters.recovered,
            ranker_detail=dispatcher.ranker.trouble,
            endpoints=[_endpoint(state) for state in engine.endpoint_states()],
            ranker_accuracy=[
                pb.RankerAccuracy(ranker_version=version, kendall_tau=tau, requests=requests)
                for version, tau, requests in self._accuracy()
            ],
        )


def _endpoint(state: EndpointState) -> pb.EndpointStats:
    # Fields that are None stay absent.
    return pb.EndpointStats(**asdict(state))
