"""{plain, TLS, mTLS} x {no, wrong, right token, each role} x every RPC: the expected code each time.

The RPCs are read from the API's descriptors, so one that is added must be added to the table here.
"""

from collections.abc import Iterator
from typing import Any, cast

import grpc
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor
from grpc import StatusCode
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from support import token_files
from support.messages import PROMPT_MARKER, inference, reason, rich_status
from support.server_process import CHANNEL_OPTIONS, ServerProcess
from support.tls import Authority
from support.token_files import ADMIN, OBSERVE, SUBMIT, WRONG, bearer, write_tokens
from support.toy_ranker import publish

from rankserve.v1 import admin_pb2, ranker_pb2
from rankserve.v1 import scheduler_pb2 as pb

EVERYBODY, NEEDS_ADMIN = {None, WRONG, SUBMIT, OBSERVE, ADMIN}, {ADMIN}
NEEDS_SUBMIT, NEEDS_OBSERVE = {SUBMIT, ADMIN}, {SUBMIT, OBSERVE, ADMIN}

# Who may call what. Drain is followed by Resume, so the server goes on.
WHO = {
    "Submit": NEEDS_SUBMIT,
    "Generate": NEEDS_SUBMIT,
    "Watch": NEEDS_SUBMIT,
    "CancelRequest": NEEDS_SUBMIT,
    "GetRequest": NEEDS_OBSERVE,
    "ListRequests": NEEDS_OBSERVE,
    "GetStats": NEEDS_OBSERVE,
    "WatchStats": NEEDS_OBSERVE,
    "Score": NEEDS_SUBMIT,
    "ListRankerVersions": NEEDS_OBSERVE,
    "LoadRankerVersion": NEEDS_ADMIN,
    "ActivateRankerVersion": NEEDS_ADMIN,
    "Drain": NEEDS_ADMIN,
    "Pause": NEEDS_ADMIN,
    "Resume": NEEDS_ADMIN,
    "SetPolicy": NEEDS_ADMIN,
    "ServerReflectionInfo": NEEDS_ADMIN,
}

METHODS: list[MethodDescriptor] = [
    method
    for file in (pb, ranker_pb2, admin_pb2, health_pb2, reflection_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
TRANSPORTS = ("plain", "tls", "mtls")
NOT_ANSWERS = {
    StatusCode.UNAUTHENTICATED,
    StatusCode.PERMISSION_DENIED,
    StatusCode.INTERNAL,
    StatusCode.UNKNOWN,
    StatusCode.DEADLINE_EXCEEDED,
}

# With a prompt where there is a field for one, so that whoever logs it is caught.
MESSAGES = {
    "Submit": pb.SubmitRequest(request=inference("submitted", output=None, max_tokens=3)),
    "Generate": pb.GenerateRequest(request=inference("generated", output=None, max_tokens=3)),
    "Score": ranker_pb2.ScoreRequest(prompts=[f"{PROMPT_MARKER} one"]),
    "SetPolicy": admin_pb2.SetPolicyRequest(policy="fcfs"),
    "ServerReflectionInfo": reflection_pb2.ServerReflectionRequest(list_services=""),
    "Watch": pb.WatchRequest(positions=[pb.WatchPosition(request_id="generated")]),
}


def full_name(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def servers(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority
) -> Iterator[dict[str, ServerProcess]]:
    """A server of each transport. What they logged is judged when all tests have called them."""
    folder = tmp_path_factory.mktemp("access")
    publish(folder / "models", "toy", 1, max_length=64)
    tokens = write_tokens(folder / "tokens.toml", ADMIN, SUBMIT, OBSERVE)
    certificate, key = authority.issue(folder)
    options = ["--repository", str(folder / "models"), "--token-file", str(tokens), "--time-scale", "100"]
    tls = ["--tls-certificate", str(certificate), "--tls-key", str(key)]
    mtls = [*tls, "--tls-client-ca", str(authority.write_ca(folder))]
    started: dict[str, ServerProcess] = {}
    try:
        for name, more in zip(TRANSPORTS, ([], tls, mtls), strict=True):
            started[name] = ServerProcess(folder / name, *options, *more)
        yield started
    finally:
        statuses = [server.stop() for server in started.values()]
    assert statuses == [0] * len(TRANSPORTS)
    for server in started.values():
        assert "Traceback" not in server.stderr
        for secret in (*token_files.ALL, PROMPT_MARKER):
            assert secret not in server.stderr + server.rest_of_stdout


@pytest.fixture(scope="module")
def channels(servers: dict[str, ServerProcess], authority: Authority) -> Iterator[dict[str, grpc.Channel]]:
    channels = {"plain": grpc.insecure_channel(servers["plain"].address, options=CHANNEL_OPTIONS)}
    for name, credentials in (("tls", authority.credentials()), ("mtls", authority.credentials(authority))):
        channels[name] = grpc.secure_channel(servers[name].address, credentials, options=CHANNEL_OPTIONS)
    yield channels
    for channel in channels.values():
        channel.close()


def call(channel: grpc.Channel, method: MethodDescriptor, metadata: Any) -> grpc.RpcError | None:
    """Calls a method and reads its first answer; returns how it failed."""
    kind = [
        "stream" if streams else "unary" for streams in (method.client_streaming, method.server_streaming)
    ]
    multicallable = getattr(channel, "_".join(kind))(
        full_name(method),
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
    )
    message = MESSAGES.get(method.name) or message_factory.GetMessageClass(method.input_type)()
    request = iter([message]) if method.client_streaming else message
    try:
        answer = multicallable(request, metadata=metadata, timeout=60)
        if method.server_streaming:
            next(answer, None)
            answer.cancel()
    except grpc.RpcError as error:
        return error
    return None


def code_of(error: grpc.RpcError) -> StatusCode:
    return cast("grpc.Call", error).code()


def test_the_table_knows_every_rpc() -> None:
    assert {method.name for method in METHODS if method.containing_service.name != "Health"} == set(WHO)


@pytest.mark.parametrize("method", METHODS, ids=full_name)
@pytest.mark.parametrize(
    "token", [None, WRONG, OBSERVE, SUBMIT, ADMIN], ids=["none", "wrong", "observe", "submit", "admin"]
)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_each_call_gets_the_code_its_token_deserves(
    channels: dict[str, grpc.Channel], transport: str, token: str | None, method: MethodDescriptor
) -> None:
    who = EVERYBODY if method.containing_service.name == "Health" else WHO[method.name]
    error = call(channels[transport], method, bearer(token))
    if token in who:
        assert error is None or code_of(error) not in NOT_ANSWERS, error
        return
    assert error is not None
    expected = (
        (StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
        if token in (None, WRONG)
        else (StatusCode.PERMISSION_DENIED, "NOT_PERMITTED")
    )
    assert (code_of(error), reason(rich_status(error))) == expected


@pytest.mark.parametrize("method", METHODS, ids=full_name)
@pytest.mark.parametrize(
    ("server", "client"),
    [("plain", "tls"), ("tls", "plain"), ("mtls", "plain"), ("mtls", "tls"), ("mtls", "stranger")],
)
def test_the_wrong_transport_reaches_nothing_whatever_the_token(
    servers: dict[str, ServerProcess],
    authority: Authority,
    server: str,
    client: str,
    method: MethodDescriptor,
) -> None:
    address = servers[server].address
    if client == "plain":
        channel = grpc.insecure_channel(address, options=CHANNEL_OPTIONS)
    else:
        certificate = Authority() if client == "stranger" else None
        channel = grpc.secure_channel(address, authority.credentials(certificate), options=CHANNEL_OPTIONS)
    with channel:
        error = call(channel, method, bearer(ADMIN))
    assert error is not None
    assert code_of(error) is StatusCode.UNAVAILABLE


@pytest.mark.parametrize("token", [None, WRONG, SUBMIT, ADMIN], ids=["none", "wrong", "submit", "admin"])
@pytest.mark.parametrize("path", ["/rankserve.v1.SchedulerService/Nope", "/no.Service/Submit", "/x"])
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_methods_that_are_not_there(
    channels: dict[str, grpc.Channel], transport: str, path: str, token: str | None
) -> None:
    method: Any = channels[transport].unary_unary(path)
    with pytest.raises(grpc.RpcError) as refused:
        method(b"", metadata=bearer(token), timeout=60)
    wanted = StatusCode.UNAUTHENTICATED if token in (None, WRONG) else StatusCode.UNIMPLEMENTED
    assert code_of(refused.value) is wanted


@pytest.mark.parametrize("method", METHODS, ids=full_name)
@pytest.mark.parametrize(
    "metadata",
    [
        (("authorization", f"Bearer {ADMIN}"), ("authorization", f"Bearer {ADMIN}")),
        (("authorization", f"Bearer {WRONG}"), ("authorization", f"Bearer {ADMIN}")),
        (("authorization", ADMIN),),
        (("authorization", f"Basic {ADMIN}"),),
        (("authorization", f"Bearer {ADMIN} {ADMIN}"),),
        (("authorization", "Bearer"),),
        (("authorization", ""),),
        (("authorization", f"Bearer {'x' * 8000}"),),
        (("authorization-bin", f"Bearer {ADMIN}".encode()),),
        (("x-authorization", f"Bearer {ADMIN}"),),
    ],
    ids=[
        "twice",
        "wrong-and-right",
        "bare",
        "basic",
        "two-words",
        "no-token",
        "empty",
        "huge",
        "binary",
        "other-key",
    ],
)
def test_what_is_almost_a_token_is_none(
    channels: dict[str, grpc.Channel], metadata: Any, method: MethodDescriptor
) -> None:
    error = call(channels["plain"], method, metadata)
    if method.containing_service.name == "Health":
        assert error is None or code_of(error) not in NOT_ANSWERS
    else:
        assert error is not None
        assert code_of(error) is StatusCode.UNAUTHENTICATED
