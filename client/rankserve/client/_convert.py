"""Python values <-> protobuf messages."""

from collections.abc import Iterator, Sequence
from datetime import UTC
from typing import Any

from google.protobuf.message import Message

from rankserve.client._exceptions import InvalidRequest
from rankserve.client._status import from_status
from rankserve.client._types import (
    Accepted,
    ChatMessage,
    Completion,
    Event,
    Failed,
    Finished,
    FinishReason,
    Queued,
    Request,
    RequestState,
    RequestStatus,
    Timing,
    Tokens,
)
from rankserve.v1 import scheduler_pb2

FINISH_REASONS = {
    scheduler_pb2.FINISH_REASON_STOP: FinishReason.STOP,
    scheduler_pb2.FINISH_REASON_LENGTH: FinishReason.LENGTH,
}
REQUEST_STATES = {
    scheduler_pb2.REQUEST_STATE_ACCEPTED: RequestState.ACCEPTED,
    scheduler_pb2.REQUEST_STATE_WAITING: RequestState.WAITING,
    scheduler_pb2.REQUEST_STATE_RUNNING: RequestState.RUNNING,
    scheduler_pb2.REQUEST_STATE_FINISHED: RequestState.FINISHED,
    scheduler_pb2.REQUEST_STATE_FAILED: RequestState.FAILED,
}


def request_to_proto(request: Request) -> scheduler_pb2.InferenceRequest:
    """Raises InvalidRequest for a value the message cannot hold, such as a negative max_tokens."""
    try:
        message = scheduler_pb2.InferenceRequest(
            id=request.id,
            model=request.model,
            sampling=scheduler_pb2.SamplingParams(
                max_tokens=request.max_tokens,
                temperature=request.temperature,
                top_p=request.top_p,
                stop=request.stop,
                seed=request.seed,
            ),
            priority=request.priority,
            tenant=request.tenant,
            deadline_ms=request.deadline_ms,
            detached=request.detached,
            result_only=request.result_only,
            metadata=request.metadata,
            replay_output_tokens=request.replay_output_tokens,
            replay_input_tokens=request.replay_input_tokens,
        )
        if request.prompt is not None:
            message.prompt = request.prompt
        else:
            message.chat.messages.extend(
                scheduler_pb2.ChatMessage(role=turn.role, content=turn.content) for turn in request.messages
            )
    except (ValueError, TypeError) as error:
        raise InvalidRequest(f"request {request.id!r} cannot be sent: {error}") from None
    return message


def request_from_proto(message: scheduler_pb2.InferenceRequest) -> Request:
    sampling = message.sampling

    def optional(holder: Message, name: str) -> Any:
        return getattr(holder, name) if holder.HasField(name) else None

    return Request(
        prompt=optional(message, "prompt"),
        messages=tuple(ChatMessage(turn.role, turn.content) for turn in message.chat.messages),
        id=message.id,
        model=message.model,
        max_tokens=optional(sampling, "max_tokens"),
        temperature=optional(sampling, "temperature"),
        top_p=optional(sampling, "top_p"),
        stop=tuple(sampling.stop),
        seed=optional(sampling, "seed"),
        priority=message.priority,
        tenant=message.tenant,
        deadline_ms=message.deadline_ms,
        detached=message.detached,
        result_only=message.result_only,
        metadata=dict(message.metadata),
        replay_output_tokens=optional(message, "replay_output_tokens"),
        replay_input_tokens=optional(message, "replay_input_tokens"),
    )


def events_from_proto(events: Sequence[scheduler_pb2.RequestEvent]) -> Iterator[Event]:
    """Kinds of event that this client does not know yet are left out."""
    for event in events:
        kind = event.WhichOneof("event")
        if kind == "tokens":
            yield Tokens(event.request_id, event.tokens.offset, event.tokens.count, event.tokens.text)
        elif kind == "finished":
            yield Finished(event.request_id, completion_from_proto(event.request_id, event.finished))
        elif kind == "queued":
            yield _queued(event.request_id, event.queued)
        elif kind == "accepted":
            yield Accepted(event.request_id, event.accepted.accept_time.ToDatetime(tzinfo=UTC))
        elif kind == "failed":
            error = from_status(event.failed.status)
            yield Failed(event.request_id, error, event.failed.output_tokens)


def _queued(request_id: str, queued: scheduler_pb2.Queued) -> Queued:
    return Queued(
        request_id,
        queued.score,
        queued.ranker_version,
        queued.place,
        queued.estimated_wait_ms if queued.HasField("estimated_wait_ms") else None,
    )


def completion_from_proto(request_id: str, result: scheduler_pb2.RequestResult) -> Completion:
    timing = result.timing
    return Completion(
        request_id=request_id,
        text=result.text,
        finish_reason=FINISH_REASONS.get(result.finish_reason, FinishReason.UNSPECIFIED),
        input_tokens=result.input_tokens,
        output_tokens=result.output_tokens,
        score=result.score,
        ranker_version=result.ranker_version,
        policy=result.policy,
        preemptions=result.preemptions,
        promoted=result.promoted,
        timing=Timing(
            timing.accept_time.ToDatetime(tzinfo=UTC),
            timing.queued_s,
            timing.scheduled_s,
            timing.first_token_s,
            timing.last_token_s,
            timing.max_token_gap_s,
            timing.time_scale,
        ),
        metadata=dict(result.metadata),
    )


def request_status_from_proto(response: scheduler_pb2.GetRequestResponse) -> RequestStatus:
    request_id = response.request_id
    return RequestStatus(
        request_id=request_id,
        state=REQUEST_STATES.get(response.state, RequestState.UNSPECIFIED),
        output_tokens=response.output_tokens,
        score=response.score,
        ranker_version=response.ranker_version,
        completion=completion_from_proto(request_id, response.result)
        if response.HasField("result")
        else None,
        error=from_status(response.failure.status) if response.HasField("failure") else None,
    )
