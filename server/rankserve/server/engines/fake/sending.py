"""From a job's tokens to what its client is sent, with the faults that happen on the way."""

import asyncio
import json
from typing import Literal

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from rankserve.server.engines.fake.connection import cut
from rankserve.server.engines.fake.core import Core, Job
from rankserve.server.engines.fake.errors import EngineError
from rankserve.server.engines.fake.faults import MID_ANSWER, FaultKind
from rankserve.server.engines.fake.formats import AnswerFormat, Json, Piece, usage

_encode = json.JSONEncoder(separators=(",", ":")).encode
_DONE = b"data: [DONE]\n\n"


class _Sender:
    """What both ways of answering have in common: what to tell, and where it goes wrong."""

    def __init__(self, core: Core, job: Job, answer_format: AnswerFormat, scope: Scope) -> None:
        self._core = core
        self._job = job
        self._format = answer_format
        self._scope = scope

    @property
    def _fault(self) -> FaultKind | None:
        return None if self._job.fault is None else self._job.fault.kind

    def _breaking_point(self) -> int | None:
        """After how many tokens the fault happens, always before the last one; None for no such fault."""
        fault = self._job.fault
        if fault is None or fault.kind not in MID_ANSWER:
            return None
        return min(fault.after_tokens, self._job.generation.tokens - 1)

    def _piece(self, first: int, last: int) -> Piece:
        generation = self._job.generation
        text = generation.between(first, last)
        if last < generation.tokens:
            return Piece(text)
        return Piece(text, generation.finish_reason, generation.stop_reason)

    def _usage(self, completion_tokens: int) -> Json | None:
        fault = self._job.fault
        if fault is not None and fault.kind == "no_usage":
            return None
        if fault is not None and fault.kind == "wrong_usage":
            # One more: a factor leaves 0 as it is.
            completion_tokens = round(completion_tokens * fault.factor) + 1
        return usage(self._job.sequence.prompt_tokens, completion_tokens)

    def _ends(self, outcome: Literal["finished", "failed"]) -> None:
        """Noted before what is sent last, for clients who then look it up."""
        self._job.record.outcome = outcome

    async def _cut(self) -> None:
        self._ends("failed")
        cut(self._scope)
        # Until the application hears of it.
        await asyncio.Event().wait()


class WholeAnswer(_Sender):
    """One JSON object, once the last token is there."""

    def __init__(
        self,
        core: Core,
        job: Job,
        answer_format: AnswerFormat,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        super().__init__(core, job, answer_format, scope)
        self._receive = receive
        self._send = send

    async def run(self) -> None:
        """Raises EngineError where a fault has the request end so."""
        tokens = self._job.generation.tokens
        breaking_point = None if self._fault == "garbage" else self._breaking_point()
        async with self._core.running(self._job) as growing:
            async for produced in growing:
                if breaking_point is not None and produced >= breaking_point:
                    tokens = breaking_point
                    break
            if self._fault == "hang":
                await asyncio.Event().wait()
        if self._fault == "cut":
            await self._cut()
        if self._fault == "error_event":
            self._ends("failed")
            raise _broken()
        await self._respond(tokens)

    async def _respond(self, tokens: int) -> None:
        self._job.record.tokens_sent = tokens
        self._ends("failed" if self._fault in MID_ANSWER else "finished")
        body = self._format.whole(self._job.heading, self._piece(0, tokens), self._usage(tokens))
        if self._fault == "garbage":
            text = _encode(body)
            response = Response(text[: len(text) // 2], media_type="application/json")
        else:
            response = JSONResponse(body)
        await response(self._scope, self._receive, self._send)


class StreamedAnswer(_Sender):
    """Server-sent events. As in vLLM the status is sent at once, before the request starts."""

    def __init__(self, core: Core, job: Job, answer_format: AnswerFormat, scope: Scope, send: Send) -> None:
        super().__init__(core, job, answer_format, scope)
        self._send = send
        self._sent = 0
        self._opened = False

    async def run(self) -> None:
        """Returns when the answer was sent, or its fault has happened."""
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        breaking_point = self._breaking_point()
        async with self._core.running(self._job) as growing:
            async for produced in growing:
                if breaking_point is not None and produced >= breaking_point:
                    await self._tell(breaking_point)
                    if self._fault != "garbage":
                        break
                    await self._tell(breaking_point + 1, garbled=True)
                    breaking_point = None
                if self._is_due(produced):
                    await self._tell(produced)
            if self._fault == "hang":
                await asyncio.Event().wait()
        await self._end()

    def _is_due(self, produced: int) -> bool:
        return (
            not self._sent
            or produced >= self._job.generation.tokens
            or produced - self._sent >= self._core.settings.tokens_per_chunk
        )

    async def _tell(self, produced: int, *, garbled: bool = False) -> None:
        """Sends the text of tokens that was not sent yet."""
        if produced <= self._sent:
            return
        events = []
        if not self._opened:
            self._opened = True
            events = [self._event(chunk, 0) for chunk in self._format.opening(self._job.heading)]
        piece = self._piece(self._sent, produced)
        event = self._event(self._format.chunk(self._job.heading, piece), produced)
        events.append(event[: len(event) // 2] + b"\n\n" if garbled else event)
        self._sent = self._job.record.tokens_sent = produced
        if produced == self._job.generation.tokens:
            self._ends("finished" if self._fault != "garbage" else "failed")
        await self._write(b"".join(events))

    async def _end(self) -> None:
        if self._fault == "cut":
            await self._cut()
        elif self._fault == "error_event":
            self._ends("failed")
            await self._write(_event(_broken().body) + _DONE, more=False)
        elif self._fault == "no_done":
            self._ends("failed")
            await self._write(b"", more=False)
        else:
            total = self._usage(self._sent) if self._job.body.include_usage else None
            last = b"" if total is None else _event(self._format.usage(self._job.heading, total))
            await self._write(last + _DONE, more=False)

    def _event(self, chunk: Json, tokens: int) -> bytes:
        if self._job.body.continuous_usage and (so_far := self._usage(tokens)) is not None:
            chunk = {**chunk, "usage": so_far}
        return _event(chunk)

    async def _write(self, body: bytes, *, more: bool = True) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": more})


def _event(body: Json) -> bytes:
    return b"data: " + _encode(body).encode("ascii") + b"\n\n"


def _broken() -> EngineError:
    return EngineError(500, "Internal server error")
