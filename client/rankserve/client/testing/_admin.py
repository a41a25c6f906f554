"""The fake server's AdminService."""

from typing import TYPE_CHECKING, Any

from rankserve.client._exceptions import FailedPrecondition, InvalidRequest
from rankserve.client.testing._access import abort, authenticate
from rankserve.v1 import admin_pb2, admin_pb2_grpc

if TYPE_CHECKING:
    from rankserve.client.testing._server import FakeServer

POLICIES = ("fcfs", "ranking", "bounded_ranking")
# One that the active ranker version does not give enough for.
UNFIT_POLICY = "cost_aware"


class FakeAdmin(admin_pb2_grpc.AdminServiceServicer):
    def __init__(self, server: "FakeServer") -> None:
        self._server = server

    def Drain(  # noqa: N802 - named by the proto
        self, request: admin_pb2.DrainRequest, context: Any
    ) -> admin_pb2.DrainResponse:
        authenticate(self._server, context)
        return admin_pb2.DrainResponse(live=self._server.drain())

    def Pause(self, request: admin_pb2.PauseRequest, context: Any) -> admin_pb2.PauseResponse:  # noqa: N802
        authenticate(self._server, context)
        return admin_pb2.PauseResponse(waiting=self._server.pause())

    def Resume(  # noqa: N802
        self, request: admin_pb2.ResumeRequest, context: Any
    ) -> admin_pb2.ResumeResponse:
        authenticate(self._server, context)
        self._server.resume()
        return admin_pb2.ResumeResponse()

    def SetPolicy(  # noqa: N802
        self, request: admin_pb2.SetPolicyRequest, context: Any
    ) -> admin_pb2.SetPolicyResponse:
        authenticate(self._server, context)
        if request.policy == UNFIT_POLICY:
            abort(context, FailedPrecondition(f"fake/1 gives nothing that {UNFIT_POLICY} needs"))
        if request.policy not in POLICIES:
            abort(context, InvalidRequest(f"no policy {request.policy!r}: choose one of {POLICIES}"))
        previous, self._server.policy = self._server.policy, request.policy
        waiting = self._server.stats().waiting
        return admin_pb2.SetPolicyResponse(previous=previous, reordered=waiting)
