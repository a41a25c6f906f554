"""`AdminService`: what an operator does with a running server."""

from collections.abc import Callable

import grpc

from rankserve.records.ranker_version import RankerVersionError
from rankserve.server.dispatcher import Dispatcher
from rankserve.server.errors import InvalidRequest
from rankserve.server.lifecycle import Lifecycle
from rankserve.server.ranker_swap import check_policy_fits
from rankserve.server.rpc.admin_log import log_admin_action
from rankserve.server.rpc.errors import abort
from rankserve.server.scheduling.policies import Policy, UnknownPolicyError
from rankserve.v1 import admin_pb2 as pb
from rankserve.v1.admin_pb2_grpc import AdminServiceServicer

Context = grpc.aio.ServicerContext[object, object]


class AdminService(AdminServiceServicer):
    def __init__(
        self, dispatcher: Dispatcher, lifecycle: Lifecycle, make_policy: Callable[[str], Policy]
    ) -> None:
        self._dispatcher = dispatcher
        self._lifecycle = lifecycle
        self._make_policy = make_policy

    async def Drain(self, request: pb.DrainRequest, context: Context) -> pb.DrainResponse:
        log_admin_action("drain")
        self._lifecycle.drain()
        return pb.DrainResponse(live=len(self._dispatcher.registry.live))

    async def Pause(self, request: pb.PauseRequest, context: Context) -> pb.PauseResponse:
        log_admin_action("pause")
        self._lifecycle.pause()
        return pb.PauseResponse(waiting=self._dispatcher.admission.waiting)

    async def Resume(self, request: pb.ResumeRequest, context: Context) -> pb.ResumeResponse:
        log_admin_action("resume")
        self._lifecycle.resume()
        return pb.ResumeResponse()

    async def SetPolicy(self, request: pb.SetPolicyRequest, context: Context) -> pb.SetPolicyResponse:
        scheduler = self._dispatcher.scheduler
        previous = scheduler.policy.name
        log_admin_action("set_policy", policy=request.policy, previous=previous)
        try:
            policy = self._make_policy(request.policy)
            check_policy_fits(policy, scheduler.settings, self._dispatcher.ranker.active)
            self._dispatcher.set_policy(policy)
        except UnknownPolicyError as error:
            await abort(context, InvalidRequest("policy", str(error)))
        except RankerVersionError as error:
            await abort(context, error)
        except ValueError as error:
            await abort(context, RankerVersionError(str(error)))
        return pb.SetPolicyResponse(previous=previous, reordered=scheduler.waiting)
