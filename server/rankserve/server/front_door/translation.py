"""From a body to a `RequestSpec`, by way of the gRPC API's message: one set of rules holds for both."""

from uuid import uuid4

from rankserve.server.access.principal import current_principal
from rankserve.server.errors import InvalidRequest
from rankserve.server.front_door.bodies import Body, ChatBody, CompletionBody
from rankserve.server.requests import RequestSpec
from rankserve.server.rpc.validation import to_spec
from rankserve.v1 import scheduler_pb2 as pb


def new_request_id() -> str:
    return uuid4().hex


def body_to_spec(
    body: Body, *, request_id: str, model: str, max_prompt_bytes: int, keep_body: bool
) -> RequestSpec:
    """The request that a body asks for.

    Args:
        body: of either kind.
        request_id: its id.
        model: its target as the server names it.
        max_prompt_bytes: longest prompt, or chat in total.
        keep_body: whether the result holds the message too, for a journal.

    Raises:
        InvalidRequest: names the parameter as the body does.
        NotPermitted: the caller may not submit for that tenant.
    """
    message = pb.InferenceRequest(
        id=request_id,
        model=model,
        sampling=pb.SamplingParams(
            max_tokens=max_tokens(body),
            temperature=body.temperature,
            top_p=body.top_p,
            stop=body.stop,
            # Seeds are signed in OpenAI's API.
            seed=None if body.seed is None else body.seed % (1 << 64),
        ),
        priority=body.priority or 0,
        tenant=_tenant(body),
        deadline_ms=body.deadline_ms or 0,
        detached=bool(body.detached),
        result_only=not body.stream,
        metadata=body.metadata or {},
    )
    if isinstance(body, CompletionBody):
        message.prompt = body.prompt
    elif isinstance(body, ChatBody):
        message.chat.SetInParent()
        for turn in body.messages:
            role = "system" if turn.role == "developer" else turn.role
            message.chat.messages.add(role=role, content=turn.content)
    try:
        return to_spec(message, max_prompt_bytes=max_prompt_bytes, replay=False, keep_body=keep_body)
    except InvalidRequest as error:
        raise as_parameter(error, body) from None


def as_parameter(error: InvalidRequest, body: Body) -> InvalidRequest:
    """The same, naming the body's parameter and not the message's field."""
    name = error.field.removeprefix("sampling.").removeprefix("chat.")
    if name == "id":
        name = "request_id"
    elif name == "prompt" and isinstance(body, ChatBody):
        name = "messages"
    elif name == "max_tokens" and isinstance(body, ChatBody) and body.max_tokens is None:
        name = "max_completion_tokens"
    elif name == "tenant" and body.tenant is None:
        name = "user"
    return InvalidRequest(name, error.problem)


def max_tokens(body: Body) -> int | None:
    if isinstance(body, ChatBody) and body.max_completion_tokens is not None:
        return body.max_completion_tokens
    return body.max_tokens


def _tenant(body: Body) -> str:
    """`user` is a wish, since clients send it without knowing of tenants; `tenant` is an order."""
    principal = current_principal()
    if not body.tenant and body.user and principal.may_see(body.user):
        return body.user
    return principal.tenant_for(body.tenant or "")
