"""`POST /v1/completions` and `POST /v1/chat/completions`, which differ in bodies and formats alone."""

import asyncio

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from rankserve.server.engines.fake.bodies import AnswerBody, parse_body, read_fields
from rankserve.server.engines.fake.connection import abort
from rankserve.server.engines.fake.core import Core, Job
from rankserve.server.engines.fake.errors import EngineError
from rankserve.server.engines.fake.formats import AnswerFormat
from rankserve.server.engines.fake.sending import StreamedAnswer, WholeAnswer


class AnswerEndpoint:
    """An ASGI application. What goes wrong before its response begins is raised.

    Args:
        core: the engine.
        kind: of body.
        answer_format: of answers.
    """

    def __init__(self, core: Core, kind: type[AnswerBody], answer_format: AnswerFormat) -> None:
        self._core = core
        self._kind = kind
        self._format = answer_format

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            fields = await read_fields(request)
        except ClientDisconnect:
            return
        body = parse_body(self._kind, fields)
        job = self._core.accept(body, fields, request.headers, scope["path"], self._format)
        answering = asyncio.ensure_future(self._answer(job, scope, receive, send))
        gone = asyncio.ensure_future(_disconnected(receive))
        closing = asyncio.ensure_future(self._core.closing.wait())
        tasks = (answering, gone, closing)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                answering.result()
            elif gone.done():
                job.record.outcome = job.record.outcome or "aborted"
            else:
                job.record.outcome = job.record.outcome or "failed"
                answering.cancel()
                abort(scope)
                await gone
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _answer(self, job: Job, scope: Scope, receive: Receive, send: Send) -> None:
        fault = job.fault
        if fault is not None and fault.kind == "error":
            job.record.outcome = "failed"
            raise EngineError(500, "Internal server error")
        if fault is not None and fault.kind == "overloaded":
            job.record.outcome = "failed"
            raise EngineError(
                fault.status,
                "the engine is overloaded",
                headers={"retry-after": str(fault.retry_after_s)},
            )
        if fault is not None and fault.kind == "hang" and not fault.after_tokens:
            await asyncio.Event().wait()
        if job.body.stream:
            await StreamedAnswer(self._core, job, self._format, scope, send).run()
        else:
            await WholeAnswer(self._core, job, self._format, scope, receive, send).run()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
