"""Every RPC of a server, called with bytes, and judged by the status that it answers."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from random import Random
from typing import Any, cast

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from grpc import StatusCode
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from support.messages import inference
from support.server_process import CHANNEL_OPTIONS

from rankserve.v1 import admin_pb2, ranker_pb2
from rankserve.v1 import scheduler_pb2 as pb

METHODS: list[MethodDescriptor] = [
    method
    for file in (pb, ranker_pb2, admin_pb2, health_pb2, reflection_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
# Not INTERNAL and UNKNOWN, and not UNAVAILABLE: a server that serves is there.
ALLOWED = {
    StatusCode.OK,
    StatusCode.INVALID_ARGUMENT,
    StatusCode.NOT_FOUND,
    StatusCode.ALREADY_EXISTS,
    StatusCode.FAILED_PRECONDITION,
    StatusCode.RESOURCE_EXHAUSTED,
    StatusCode.UNIMPLEMENTED,
    StatusCode.UNAUTHENTICATED,
    StatusCode.PERMISSION_DENIED,
}
_ALLOWED_IN_EVENTS = ALLOWED | {StatusCode.CANCELLED, StatusCode.DEADLINE_EXCEEDED}
_NUMBERS_IN_EVENTS = {code.value[0] for code in _ALLOWED_IN_EVENTS}
_RESPONSES = 20
_ENDLESS = {"/grpc.health.v1.Health/Watch", "/rankserve.v1.SchedulerService/WatchStats"}
_PATIENCE_S = 60.0
_SHOWN_BYTES = 400


def path_of(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


def good_message(draw: Random, method: MethodDescriptor) -> bytes:
    """A message that the method takes."""
    request_id = f"good-{draw.randrange(1 << 20)}"
    request = inference(
        request_id,
        output=draw.choice((None, 1, 5)),
        max_tokens=draw.choice((1, 10)),
        priority=draw.choice((0, 1, -1000)),
        tenant=draw.choice(("", "a")),
        metadata={"k": "v"},
        deadline_ms=draw.choice((0, 0, 1, 60_000)),
        detached=draw.random() < 0.1,
        result_only=draw.random() < 0.3,
    )
    name = draw.choice(("toy", "toy", "absent"))
    messages: dict[str, Message] = {
        "Submit": pb.SubmitRequest(request=request, requests=[request] * draw.choice((0, 0, 3))),
        "Generate": pb.GenerateRequest(request=request),
        "Watch": pb.WatchRequest(
            positions=[pb.WatchPosition(request_id=request_id, offset=draw.choice((0, 3)))]
        ),
        "CancelRequest": pb.CancelRequestRequest(request_id=request_id),
        "GetRequest": pb.GetRequestRequest(request_id=request_id),
        "ListRequests": pb.ListRequestsRequest(
            page_size=10, page_token="3", states=[pb.REQUEST_STATE_FAILED], tenant="a"
        ),
        "WatchStats": pb.WatchStatsRequest(interval_ms=100),
        "Score": ranker_pb2.ScoreRequest(prompts=[request.prompt, "one two"]),
        "LoadRankerVersion": ranker_pb2.LoadRankerVersionRequest(name=name, version=draw.randrange(3)),
        "ActivateRankerVersion": ranker_pb2.ActivateRankerVersionRequest(
            name=name, version=draw.randrange(3)
        ),
        "SetPolicy": admin_pb2.SetPolicyRequest(policy=draw.choice(("fcfs", "ranking", "hrrn", "nope"))),
        "Check": health_pb2.HealthCheckRequest(service="rankserve.v1.SchedulerService"),
        "ServerReflectionInfo": reflection_pb2.ServerReflectionRequest(
            file_containing_symbol=draw.choice(("rankserve.v1.SchedulerService", "nope"))
        ),
    }
    message = messages.get(method.name) or message_factory.GetMessageClass(method.input_type)()
    return message.SerializeToString()


class Caller:
    """Calls methods with bytes. A context manager."""

    def __init__(self, address: str) -> None:
        # grpc.aio loses the status of a call that ends while it writes.
        self._channel: Any = grpc.insecure_channel(address, options=CHANNEL_OPTIONS)
        self._threads = ThreadPoolExecutor(32)

    def __enter__(self) -> "Caller":
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown()
        self._channel.close()

    async def call(self, method: MethodDescriptor, messages: Sequence[bytes], metadata: Any) -> None:
        """Calls a method and reads what it answers, or the beginning of a long answer.

        Raises:
            AssertionError: the call, or a request on it, ended with a status that is a fault of the server's.
        """
        run = asyncio.get_running_loop().run_in_executor
        error = await run(self._threads, self._call, method, messages, metadata)
        if error is not None:
            details = str(error.details())[:500]
            assert error.code() in ALLOWED, f"{error.code()} {details!r} to {described(method, messages)}"

    def _call(self, method: MethodDescriptor, messages: Sequence[bytes], metadata: Any) -> Any:
        kind = "_".join(
            "stream" if streams else "unary" for streams in (method.client_streaming, method.server_streaming)
        )
        request = iter(messages) if method.client_streaming else messages[0]
        send = getattr(self._channel, kind)(path_of(method))
        try:
            answer = send(request, metadata=metadata, timeout=_PATIENCE_S)
            if method.server_streaming:
                _read(answer, method)
        except grpc.RpcError as error:
            return error
        return None


def described(method: MethodDescriptor, messages: Sequence[bytes]) -> str:
    """A call, so that it can be repeated."""
    shown = [
        f"{message[:_SHOWN_BYTES].hex()}{f'... of {len(message)}' if len(message) > _SHOWN_BYTES else ''}"
        for message in messages
    ]
    return f"{path_of(method)} with {', '.join(shown)}"


def _read(answer: Any, method: MethodDescriptor) -> None:
    most = 1 if path_of(method) in _ENDLESS else _RESPONSES
    # Only where there is something to judge: what reflection repeats may be nested too deep to be read.
    has_events = "events" in method.output_type.fields_by_name
    parse = message_factory.GetMessageClass(method.output_type).FromString
    for data in islice(answer, most):
        for event in cast("pb.SubmitResponse", parse(data)).events if has_events else ():
            failed = event.failed.status
            assert failed.code in _NUMBERS_IN_EVENTS, f"{event}"
    answer.cancel()
