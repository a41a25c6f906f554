"""Who calls, and whether it may."""

from typing import Any

import grpc

from rankserve.server.access.bearer import authenticate
from rankserve.server.access.method_roles import OPEN_SERVICE, ReflectionFor, may_call
from rankserve.server.access.principal import NOBODY, set_current_principal
from rankserve.server.access.tokens import TokenStore
from rankserve.server.errors import NotAuthenticated, NotPermitted
from rankserve.server.rpc.interceptors.handlers import Continuation, refusal


class CallerInterceptor(grpc.aio.ServerInterceptor):
    """Refuses calls without a token that allows them; sets the current principal for those that pass.

    Args:
        tokens: None lets everybody do everything.
        reflection: who may ask for the API's description.
    """

    def __init__(self, tokens: TokenStore | None, reflection: ReflectionFor = "admin") -> None:
        self._tokens = tokens
        self._reflection: ReflectionFor = reflection

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        method = handler_call_details.method
        if method.startswith(OPEN_SERVICE):
            set_current_principal(NOBODY)
            return await continuation(handler_call_details)
        try:
            principal = authenticate(self._tokens, handler_call_details.invocation_metadata)
        except NotAuthenticated as error:
            return refusal(error)
        # The call's handler runs in this task too.
        set_current_principal(principal)
        handler = await continuation(handler_call_details)
        if handler is not None and not may_call(principal, method, self._reflection):
            return refusal(NotPermitted(f"this token may not call {method.rpartition('/')[2]}"))
        return handler
