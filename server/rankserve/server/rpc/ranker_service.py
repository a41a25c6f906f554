"""`RankerService`: scores without queueing, and the ranker versions."""

import asyncio

import grpc

from rankserve.records.ranker_version import RankerVersionError
from rankserve.server.errors import InvalidRequest
from rankserve.server.ranker_swap import RankerSwap
from rankserve.server.ranking.errors import ScoringError
from rankserve.server.ranking.ranker import LoadedVersion, PromptScore, Ranker
from rankserve.server.ranking.repository import VersionEntry
from rankserve.server.rpc.admin_log import log_admin_action
from rankserve.server.rpc.errors import abort
from rankserve.v1 import ranker_pb2 as pb
from rankserve.v1.ranker_pb2_grpc import RankerServiceServicer

Context = grpc.aio.ServicerContext[object, object]

MAX_PROMPTS = 1024


class RankerService(RankerServiceServicer):
    def __init__(self, ranker: Ranker, swap: RankerSwap, *, max_prompt_bytes: int) -> None:
        self._ranker = ranker
        self._swap = swap
        self._max_prompt_bytes = max_prompt_bytes

    async def Score(self, request: pb.ScoreRequest, context: Context) -> pb.ScoreResponse:
        try:
            self._check(request)
            active = self._ranker.active
            if active is None:
                raise RankerVersionError("the server has no active ranker version")
            scores = await active.score_many(list(request.prompts))
            return pb.ScoreResponse(
                scores=[_score_message(score) for score in scores], ranker_version=active.reference
            )
        except (InvalidRequest, RankerVersionError, ScoringError) as error:
            await abort(context, error)

    async def ListRankerVersions(
        self, request: pb.ListRankerVersionsRequest, context: Context
    ) -> pb.ListRankerVersionsResponse:
        try:
            entries = await asyncio.to_thread(self._ranker.repository.list_versions)
        except RankerVersionError as error:
            await abort(context, error)
        return pb.ListRankerVersionsResponse(versions=[self._version_message(entry) for entry in entries])

    async def LoadRankerVersion(
        self, request: pb.LoadRankerVersionRequest, context: Context
    ) -> pb.LoadRankerVersionResponse:
        try:
            if not request.name:
                raise InvalidRequest("name", "must not be empty")
            log_admin_action("load_ranker_version", name=request.name, version=request.version)
            loaded = await self._swap.load(request.name, request.version or None)
        except (InvalidRequest, RankerVersionError) as error:
            await abort(context, error)
        return pb.LoadRankerVersionResponse(loaded=self._loaded_message(loaded))

    async def ActivateRankerVersion(
        self, request: pb.ActivateRankerVersionRequest, context: Context
    ) -> pb.ActivateRankerVersionResponse:
        try:
            if not request.name:
                raise InvalidRequest("name", "must not be empty")
            log_admin_action("activate_ranker_version", name=request.name, version=request.version)
            loaded, rescored = await self._swap.activate(request.name, request.version or None)
        except (InvalidRequest, RankerVersionError, ScoringError) as error:
            await abort(context, error)
        return pb.ActivateRankerVersionResponse(active=self._loaded_message(loaded), rescored=rescored)

    def _check(self, request: pb.ScoreRequest) -> None:
        if not 1 <= len(request.prompts) <= MAX_PROMPTS:
            raise InvalidRequest("prompts", f"must be 1 to {MAX_PROMPTS}, got {len(request.prompts)}")
        for index, prompt in enumerate(request.prompts):
            if not prompt.strip():
                raise InvalidRequest(f"prompts[{index}]", "must not be empty")
            if len(prompt.encode()) > self._max_prompt_bytes:
                raise InvalidRequest(f"prompts[{index}]", f"exceeds {self._max_prompt_bytes} bytes")

    def _loaded_message(self, loaded: LoadedVersion) -> pb.RankerVersion:
        manifest = loaded.manifest
        return self._version_message(VersionEntry(manifest.name, manifest.version, manifest))

    def _version_message(self, entry: VersionEntry) -> pb.RankerVersion:
        active, ready = self._ranker.active, self._ranker.ready
        message = pb.RankerVersion(
            name=entry.name,
            version=entry.version,
            active=active is not None and active.reference == f"{entry.name}/{entry.version}",
            problem=entry.problem,
        )
        message.loaded = message.active or (
            ready is not None and ready.reference == f"{entry.name}/{entry.version}"
        )
        if active is not None and message.active:
            message.providers.extend(active.providers)
            message.missing_providers.extend(active.missing_providers)
            message.problem = entry.problem or active.problem
        if entry.manifest is not None:
            message.precision = entry.manifest.precision
            message.created_at = entry.manifest.created_at
            message.base_model = entry.manifest.base_model
            if "kendall_tau" in entry.manifest.metrics:
                message.kendall_tau = entry.manifest.metrics["kendall_tau"]
            if (coverage := entry.manifest.coverage) is not None:
                message.coverage_p50, message.coverage_p90 = coverage.p50, coverage.p90
        return message


def _score_message(score: PromptScore) -> pb.PromptScore:
    return pb.PromptScore(
        score=score.score,
        expected_tokens_p50=score.expected_tokens_p50,
        expected_tokens_p90=score.expected_tokens_p90,
    )
