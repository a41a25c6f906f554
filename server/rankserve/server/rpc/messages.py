"""From the server's events to the API's messages."""

from collections.abc import Sequence

from google.protobuf.internal.containers import RepeatedCompositeFieldContainer
from google.protobuf.timestamp_pb2 import Timestamp

from rankserve.server.events import Accepted, Event, Failed, Finished, Queued, Timing, Tokens
from rankserve.server.requests import LiveRequest
from rankserve.server.rpc.errors import to_status
from rankserve.server.scheduling.request import Phase
from rankserve.v1 import scheduler_pb2 as pb

_FINISH_REASONS = {"stop": pb.FINISH_REASON_STOP, "length": pb.FINISH_REASON_LENGTH}


def add_events(events: Sequence[Event], to: RepeatedCompositeFieldContainer[pb.RequestEvent]) -> None:
    """Writes events into a response: made beside it, each would be copied."""
    for event in events:
        _write(event, to.add(request_id=event.request_id))


def request_state(live: LiveRequest) -> pb.GetRequestResponse:
    response = pb.GetRequestResponse(
        request_id=live.spec.id,
        state=state_of(live),
        output_tokens=live.told_tokens,
        score=live.score,
        ranker_version=live.ranker_version,
    )
    if live.told_outcome and isinstance(live.outcome, Finished):
        response.result.CopyFrom(_result(live.outcome))
    elif live.told_outcome and isinstance(live.outcome, Failed):
        response.failure.CopyFrom(_failure(live.outcome))
    return response


def request_summary(live: LiveRequest) -> pb.RequestSummary:
    return pb.RequestSummary(
        request_id=live.spec.id,
        state=state_of(live),
        tenant=live.spec.tenant,
        priority=live.spec.priority,
        accept_time=_timestamp(live.accept_time),
        input_tokens=live.request.prompt_tokens,
        output_tokens=live.told_tokens,
        score=live.score,
        ranker_version=live.ranker_version,
    )


def state_of(live: LiveRequest) -> "pb.RequestState.ValueType":
    """As clients may know it: what is not recorded yet has not happened."""
    if live.told_outcome:
        finished = isinstance(live.outcome, Finished)
        return pb.REQUEST_STATE_FINISHED if finished else pb.REQUEST_STATE_FAILED
    if live.request.phase is Phase.NEW or (live.scoring is not None and live.request.phase is Phase.WAITING):
        return pb.REQUEST_STATE_ACCEPTED
    return pb.REQUEST_STATE_WAITING if live.request.phase is Phase.WAITING else pb.REQUEST_STATE_RUNNING


def _write(event: Event, message: pb.RequestEvent) -> None:
    match event:
        case Tokens():
            tokens = message.tokens
            tokens.offset, tokens.count, tokens.text = event.offset, event.count, event.text
        case Accepted():
            _set_time(message.accepted.accept_time, event.accept_time)
        case Queued():
            queued = message.queued
            queued.score, queued.ranker_version = event.score, event.ranker_version
            queued.place = event.place
            if event.estimated_wait_s is not None:
                queued.estimated_wait_ms = round(event.estimated_wait_s * 1000)
        case Finished():
            message.finished.CopyFrom(_result(event))
        case Failed():
            message.failed.CopyFrom(_failure(event))


def _result(event: Finished) -> pb.RequestResult:
    return pb.RequestResult(
        finish_reason=_FINISH_REASONS[event.finish_reason],
        input_tokens=event.input_tokens,
        output_tokens=event.output_tokens,
        text=event.text,
        score=event.score,
        ranker_version=event.ranker_version,
        policy=event.policy,
        preemptions=event.preemptions,
        promoted=event.promoted,
        timing=_timing(event.timing),
        metadata=event.metadata,
    )


def _timing(timing: Timing) -> pb.RequestTiming:
    return pb.RequestTiming(
        accept_time=_timestamp(timing.accept_time),
        queued_s=timing.queued_s,
        scheduled_s=timing.scheduled_s,
        first_token_s=timing.first_token_s,
        last_token_s=timing.last_token_s,
        max_token_gap_s=timing.max_token_gap_s,
        time_scale=timing.time_scale,
    )


def _failure(event: Failed) -> pb.RequestFailure:
    return pb.RequestFailure(status=to_status(event.error), output_tokens=event.output_tokens)


def _timestamp(unix_time_s: float) -> Timestamp:
    timestamp = Timestamp()
    _set_time(timestamp, unix_time_s)
    return timestamp


def _set_time(timestamp: Timestamp, unix_time_s: float) -> None:
    seconds = int(unix_time_s)
    timestamp.seconds, timestamp.nanos = seconds, int((unix_time_s - seconds) * 1e9)
