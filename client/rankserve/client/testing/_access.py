"""Who may call the fake server, and how it says no."""

from typing import TYPE_CHECKING, Any, NoReturn

from grpc_status import rpc_status

from rankserve.client._exceptions import NotFound, RankServeError, Unauthenticated
from rankserve.client._status import to_status
from rankserve.client.testing._request import FakeRequest

if TYPE_CHECKING:
    from rankserve.client.testing._server import FakeServer


def authenticate(server: "FakeServer", context: Any) -> None:
    given = dict(context.invocation_metadata()).get("authorization")
    if server.token is not None and given != f"Bearer {server.token}":
        abort(context, Unauthenticated("the token is missing or not known"))


def find(server: "FakeServer", request_id: str, context: Any) -> FakeRequest:
    request = server.find(request_id)
    if request is None:
        abort(context, NotFound(f"no request {request_id!r}"))
    return request


def abort(context: Any, error: RankServeError) -> NoReturn:
    context.abort_with_status(rpc_status.to_status(to_status(error)))
    raise error  # abort raises before this; the type checker cannot know
