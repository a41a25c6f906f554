"""The fake server's RankerService."""

from typing import TYPE_CHECKING, Any

from rankserve.client._exceptions import FailedPrecondition, InvalidRequest, NotFound
from rankserve.client.testing._access import abort, authenticate
from rankserve.v1 import ranker_pb2, ranker_pb2_grpc

if TYPE_CHECKING:
    from rankserve.client.testing._server import FakeServer


class FakeRanker(ranker_pb2_grpc.RankerServiceServicer):
    """Scores a prompt by its length, and has one good version and one damaged one."""

    def __init__(self, server: "FakeServer") -> None:
        self._server = server
        self._good = ranker_pb2.RankerVersion(
            name="fake",
            version=1,
            active=True,
            kendall_tau=0.5,
            precision="int8",
            base_model="none",
            providers=["CPUExecutionProvider"],
            coverage_p50=0.5,
            coverage_p90=0.9,
            loaded=True,
        )
        self._damaged = ranker_pb2.RankerVersion(name="fake", version=2, problem="model.onnx is damaged")

    def Score(  # noqa: N802 - named by the proto
        self, request: ranker_pb2.ScoreRequest, context: Any
    ) -> ranker_pb2.ScoreResponse:
        authenticate(self._server, context)
        if not request.prompts or not all(request.prompts):
            abort(context, InvalidRequest("prompts must not be empty"))
        scores = [
            ranker_pb2.PromptScore(score=-float(len(prompt)), expected_tokens_p50=float(len(prompt)))
            for prompt in request.prompts
        ]
        return ranker_pb2.ScoreResponse(scores=scores, ranker_version="fake/1")

    def ListRankerVersions(  # noqa: N802
        self, request: ranker_pb2.ListRankerVersionsRequest, context: Any
    ) -> ranker_pb2.ListRankerVersionsResponse:
        authenticate(self._server, context)
        return ranker_pb2.ListRankerVersionsResponse(versions=[self._good, self._damaged])

    def LoadRankerVersion(  # noqa: N802
        self, request: ranker_pb2.LoadRankerVersionRequest, context: Any
    ) -> ranker_pb2.LoadRankerVersionResponse:
        authenticate(self._server, context)
        self._check_usable(request.name, request.version, context)
        return ranker_pb2.LoadRankerVersionResponse(loaded=self._good)

    def ActivateRankerVersion(  # noqa: N802
        self, request: ranker_pb2.ActivateRankerVersionRequest, context: Any
    ) -> ranker_pb2.ActivateRankerVersionResponse:
        authenticate(self._server, context)
        self._check_usable(request.name, request.version, context)
        return ranker_pb2.ActivateRankerVersionResponse(active=self._good, rescored=0)

    def _check_usable(self, name: str, version: int, context: Any) -> None:
        if name != "fake" or version > 2:
            abort(context, NotFound(f"no ranker version {name}/{version}"))
        if version == 2:
            abort(context, FailedPrecondition(self._damaged.problem, reason="RANKER_VERSION_UNUSABLE"))
