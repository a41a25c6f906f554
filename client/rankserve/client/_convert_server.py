"""What a server says of itself, from protobuf messages."""

from dataclasses import fields
from datetime import UTC

from rankserve.client._convert import REQUEST_STATES
from rankserve.client._server_types import (
    Activation,
    EndpointStats,
    PolicyChange,
    PromptScore,
    RankerAccuracy,
    RankerVersionInfo,
    RequestSummary,
    Scores,
    ServerState,
    Stats,
)
from rankserve.client._types import RequestState
from rankserve.v1 import admin_pb2, ranker_pb2, scheduler_pb2

SERVER_STATES = {
    scheduler_pb2.SERVER_STATE_SERVING: ServerState.SERVING,
    scheduler_pb2.SERVER_STATE_PAUSED: ServerState.PAUSED,
    scheduler_pb2.SERVER_STATE_DRAINING: ServerState.DRAINING,
    scheduler_pb2.SERVER_STATE_FAILED: ServerState.FAILED,
}
_NOT_NUMBERS = ("state", "ranker_accuracy", "endpoints")
STATS_NUMBERS = [field.name for field in fields(Stats) if field.name not in _NOT_NUMBERS]


def stats_from_proto(response: scheduler_pb2.GetStatsResponse) -> Stats:
    counters = {name: getattr(response, name) for name in STATS_NUMBERS}
    return Stats(
        **counters,
        state=SERVER_STATES.get(response.state, ServerState.UNSPECIFIED),
        ranker_accuracy=tuple(
            RankerAccuracy(
                accuracy.ranker_version,
                accuracy.kendall_tau if accuracy.HasField("kendall_tau") else None,
                accuracy.requests,
            )
            for accuracy in response.ranker_accuracy
        ),
        endpoints=tuple(
            EndpointStats(
                endpoint.url,
                endpoint.model,
                endpoint.circuit,
                endpoint.in_flight,
                endpoint.limit,
                running=endpoint.running if endpoint.HasField("running") else None,
                waiting=endpoint.waiting if endpoint.HasField("waiting") else None,
                kv_usage=endpoint.kv_usage if endpoint.HasField("kv_usage") else None,
            )
            for endpoint in response.endpoints
        ),
    )


def summaries_from_proto(response: scheduler_pb2.ListRequestsResponse) -> tuple[RequestSummary, ...]:
    return tuple(
        RequestSummary(
            request_id=request.request_id,
            state=REQUEST_STATES.get(request.state, RequestState.UNSPECIFIED),
            tenant=request.tenant,
            priority=request.priority,
            accept_time=request.accept_time.ToDatetime(tzinfo=UTC),
            input_tokens=request.input_tokens,
            output_tokens=request.output_tokens,
            score=request.score,
            ranker_version=request.ranker_version,
        )
        for request in response.requests
    )


def scores_from_proto(response: ranker_pb2.ScoreResponse) -> Scores:
    return Scores(
        scores=tuple(
            PromptScore(
                score.score,
                score.expected_tokens_p50 if score.HasField("expected_tokens_p50") else None,
                score.expected_tokens_p90 if score.HasField("expected_tokens_p90") else None,
            )
            for score in response.scores
        ),
        ranker_version=response.ranker_version,
    )


def ranker_version_from_proto(version: ranker_pb2.RankerVersion) -> RankerVersionInfo:
    return RankerVersionInfo(
        name=version.name,
        version=version.version,
        active=version.active,
        problem=version.problem,
        kendall_tau=version.kendall_tau if version.HasField("kendall_tau") else None,
        precision=version.precision,
        created_at=version.created_at,
        base_model=version.base_model,
        providers=tuple(version.providers),
        missing_providers=tuple(version.missing_providers),
        coverage_p50=version.coverage_p50 if version.HasField("coverage_p50") else None,
        coverage_p90=version.coverage_p90 if version.HasField("coverage_p90") else None,
        loaded=version.loaded,
    )


def ranker_versions_from_proto(
    response: ranker_pb2.ListRankerVersionsResponse,
) -> tuple[RankerVersionInfo, ...]:
    return tuple(map(ranker_version_from_proto, response.versions))


def activation_from_proto(response: ranker_pb2.ActivateRankerVersionResponse) -> Activation:
    return Activation(ranker_version_from_proto(response.active), response.rescored)


def policy_change_from_proto(response: admin_pb2.SetPolicyResponse) -> PolicyChange:
    return PolicyChange(response.previous, response.reordered)
