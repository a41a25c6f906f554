"""The sync client, on grpc's own threads."""

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import grpc

from rankserve.client import _calls, _convert
from rankserve.client._base import DEFAULT_LIMITS, DEFAULT_TIMEOUT, BaseClient
from rankserve.client._channel import Stubs, sync_channel
from rankserve.client._config import Limits, Timeout, TlsConfig
from rankserve.client._exceptions import ConnectionFailed, InternalError
from rankserve.client._options import Input, RequestOptions, make_request
from rankserve.client._status import from_rpc_error
from rankserve.client._sync_stream import SubmitStream
from rankserve.client._types import (
    Activation,
    Completion,
    Event,
    Failed,
    Finished,
    RankerVersionInfo,
    RequestStatus,
    Scores,
    Stats,
)
from rankserve.v1 import scheduler_pb2

T = TypeVar("T")


class SchedulerClient(BaseClient):
    """Talks to one RankServe server, without asyncio::

        with SchedulerClient("localhost:50051") as client:
            completion = client.complete("Why is the sky blue?", max_tokens=200)

    The surface of AsyncSchedulerClient. Safe to share between threads.
    """

    def __init__(
        self,
        target: str,
        *,
        timeout: Timeout = DEFAULT_TIMEOUT,
        limits: Limits = DEFAULT_LIMITS,
        tls: TlsConfig | None = None,
        token: str | None = None,
    ) -> None:
        super().__init__(target, timeout=timeout, limits=limits, tls=tls, token=token)
        self._channel = sync_channel(target, limits, tls)
        self._all_stubs = Stubs.on(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection. Calls in flight are cancelled."""
        self._closed = True
        self._channel.close()

    def wait_ready(self) -> None:
        """Waits until the server can be reached. Raises ConnectionFailed after ``timeout.connect_s``."""
        self._check_open()
        try:
            grpc.channel_ready_future(self._channel).result(timeout=self._timeout.connect_s)
        except grpc.FutureTimeoutError:
            raise ConnectionFailed(
                f"no RankServe server answered at {self._target} within {self._timeout.connect_s:g} s"
            ) from None

    def generate(self, source: Input, /, **options: Unpack[RequestOptions]) -> Iterator[Event]:
        """Sends one request and yields its events: Accepted, Queued, Tokens..., Finished.

        Leaving the iteration early cancels the request.

        Args:
            source: a prompt, the messages of a chat, or a Request.
            options: fields of Request.

        Raises:
            RankServeError: also where a ``submit()`` stream would carry a Failed event.
        """
        request = make_request(source, options)
        message = scheduler_pb2.GenerateRequest(request=_convert.request_to_proto(request))
        call = self._stubs.scheduler.Generate(
            message, timeout=self._timeout.generate_s, metadata=self._metadata
        )
        try:
            for response in call:
                for event in _convert.events_from_proto(response.events):
                    if isinstance(event, Failed):
                        raise event.error
                    yield event
                    if isinstance(event, Finished):
                        return
        except grpc.RpcError as error:
            raise from_rpc_error(error, self._target) from None
        finally:
            call.cancel()
        raise InternalError(f"the server ended the stream before request {request.id!r} had ended")

    def complete(self, source: Input, /, **options: Unpack[RequestOptions]) -> Completion:
        """Sends one request and returns the whole answer; see ``generate``."""
        options["result_only"] = True
        completion = None
        for event in self.generate(source, **options):
            if isinstance(event, Finished):
                completion = event.completion
        assert completion is not None, "generate() ends with Finished or raises"
        return completion

    def submit(self) -> SubmitStream:
        """A stream that carries many requests at once; see SubmitStream."""
        return SubmitStream(self._stubs.scheduler.Submit, self._metadata, self._target)

    def cancel(self, request_id: str) -> bool:
        """Cancels a request. False if it had ended before."""
        return self._answer(_calls.cancel(request_id))

    def get_request(self, request_id: str) -> RequestStatus:
        """A request's state, live or recently ended. Raises NotFound for an id the server does not know."""
        return self._answer(_calls.get_request(request_id))

    def stats(self) -> Stats:
        """Queue, engine and scheduler counters."""
        return self._answer(_calls.stats())

    def score(self, prompts: Sequence[str]) -> Scores:
        """Scores 1 to 1024 prompts without queueing them."""
        return self._answer(_calls.score(prompts))

    def list_ranker_versions(self) -> tuple[RankerVersionInfo, ...]:
        """Every version in the server's model repository, usable or not."""
        return self._answer(_calls.list_ranker_versions())

    def activate_ranker_version(self, name: str, version: int = 0) -> Activation:
        """Makes a version the active one, 0 for the newest, and scores what waits with it.

        Raises:
            FailedPrecondition: it is damaged; the version active before stays active.
        """
        return self._answer(_calls.activate_ranker_version(name, version))

    def _answer(self, call: _calls.UnaryCall[T]) -> T:
        try:
            response: Any = self._stubs.method(call.method)(
                call.message, timeout=call.timeout_s(self._timeout), metadata=self._metadata
            )
        except grpc.RpcError as error:
            raise from_rpc_error(error, self._target) from None
        return call.convert(response)

    @property
    def _stubs(self) -> Stubs:
        self._check_open()
        return self._all_stubs
