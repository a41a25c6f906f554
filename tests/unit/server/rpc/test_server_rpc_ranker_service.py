"""What `RankerService` answers where a real server cannot easily be brought."""

from types import SimpleNamespace
from typing import Any, NoReturn

import grpc
import pytest

from rankserve.records.ranker_version import RankerVersionError
from rankserve.server.ranking.repository import VersionEntry
from rankserve.server.rpc.ranker_service import RankerService
from rankserve.v1 import ranker_pb2 as pb


class Aborted(Exception):  # noqa: N818
    pass


class AbortingContext:
    """The part of a gRPC context that refusals use."""

    async def abort(self, code: grpc.StatusCode, details: str, _metadata: object) -> NoReturn:
        raise Aborted(code, details)


async def test_missing_providers_and_other_scores_are_told_of_the_active_version_only() -> None:
    entries = [VersionEntry("r", 1, None), VersionEntry("r", 2, None)]
    active = SimpleNamespace(
        reference="r/2", providers=("CPU",), missing_providers=("CUDA",), problem="scores differ"
    )
    ranker: Any = SimpleNamespace(
        active=active, ready=None, repository=SimpleNamespace(list_versions=lambda: entries)
    )
    swap: Any = None
    context: Any = AbortingContext()
    service = RankerService(ranker, swap, max_prompt_bytes=100)
    first, second = (await service.ListRankerVersions(pb.ListRankerVersionsRequest(), context)).versions
    assert (first.active, list(first.providers), list(first.missing_providers)) == (False, [], [])
    assert (second.active, list(second.providers), list(second.missing_providers)) == (
        True,
        ["CPU"],
        ["CUDA"],
    )
    assert (first.problem, second.problem) == ("", "scores differ")


async def test_a_repository_that_cannot_be_read_is_told_and_not_an_unknown_error() -> None:
    def list_versions() -> NoReturn:
        raise RankerVersionError("/models: unreadable (Permission denied)")

    ranker: Any = SimpleNamespace(active=None, repository=SimpleNamespace(list_versions=list_versions))
    swap: Any = None
    context: Any = AbortingContext()
    service = RankerService(ranker, swap, max_prompt_bytes=100)
    with pytest.raises(Aborted) as aborted:
        await service.ListRankerVersions(pb.ListRankerVersionsRequest(), context)
    assert aborted.value.args == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "/models: unreadable (Permission denied)",
    )
