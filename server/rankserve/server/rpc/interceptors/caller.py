"""Who calls, and whether it may."""

from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any

import grpc

from rankserve.server.access.bearer import authenticate
from rankserve.server.access.method_roles import OPEN_SERVICE, ReflectionFor, may_call
from rankserve.server.access.principal import NOBODY, current_principal, set_current_principal
from rankserve.server.access.tokens import TokenStore
from rankserve.server.errors import NotAuthenticated, NotPermitted, RequestError
from rankserve.server.ranking.throttled_log import ThrottledLog
from rankserve.server.rpc.interceptors.handlers import Continuation, refusal


class CallerInterceptor(grpc.aio.ServerInterceptor):
    """Refuses calls without a token that allows them; sets the current principal for those that pass.

    Args:
        tokens: None lets everybody do everything.
        reflection: who may ask for the API's description.
        clock: seconds; for how often refused calls are logged.
    """

    def __init__(
        self,
        tokens: TokenStore | None,
        reflection: ReflectionFor = "admin",
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._tokens = tokens
        self._reflection: ReflectionFor = reflection
        self._throttled_log = ThrottledLog(clock)

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
            return refusal(error, partial(self._log, error))
        # The call's handler runs in this task too.
        set_current_principal(principal)
        handler = await continuation(handler_call_details)
        if handler is not None and not may_call(principal, method, self._reflection):
            forbidden = NotPermitted(f"this token may not call {method.rpartition('/')[2]}")
            return refusal(forbidden, partial(self._log, forbidden))
        return handler

    def _log(self, error: RequestError, peer: str) -> None:
        caller = {"caller": current_principal().name} if isinstance(error, NotPermitted) else {}
        self._throttled_log.warning("call_refused", kind=type(error).__name__, peer=peer, **caller)
