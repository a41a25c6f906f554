"""What the endpoints of a fake engine share: who is served, and how each request is to be answered."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any
from uuid import uuid4

from starlette.datastructures import Headers

from rankserve.server.engines.fake.answers import Answers
from rankserve.server.engines.fake.batch import Batch, Sequence
from rankserve.server.engines.fake.bodies import AnswerBody
from rankserve.server.engines.fake.errors import EngineError
from rankserve.server.engines.fake.faults import Fault, Faults
from rankserve.server.engines.fake.formats import AnswerFormat, Heading
from rankserve.server.engines.fake.generation import Generation, generate
from rankserve.server.engines.fake.prompts import count_tokens
from rankserve.server.engines.fake.records import RequestRecord, RequestRecords
from rankserve.server.engines.fake.settings import FakeEngineSettings
from rankserve.server.engines.fake.stepping import Stepper


@dataclass(slots=True, frozen=True)
class Job:
    """A request and its answer.

    Attributes:
        body: the request.
        heading: of its answer.
        generation: the answer.
        sequence: its place in the batch.
        fault: what is to go wrong.
        record: what is remembered of it.
    """

    body: AnswerBody
    heading: Heading
    generation: Generation
    sequence: Sequence
    fault: Fault | None
    record: RequestRecord


class Core:
    """The engine behind its API.

    Args:
        settings: of the engine.
        clock: monotonic seconds.
        sleep: for some seconds.
        wall_clock: Unix time.
    """

    def __init__(
        self,
        settings: FakeEngineSettings,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        wall_clock: Callable[[], float],
    ) -> None:
        self.settings = settings
        self.faults = Faults(settings.seed, settings.faults)
        self.records = RequestRecords(settings.max_records)
        self.batch = Batch(
            max_num_seqs=settings.max_num_seqs,
            kv_tokens=settings.kv_tokens,
            ttft_s=settings.ttft_s,
            itl_s=settings.itl_s,
            itl_per_sequence_s=settings.itl_per_sequence_s,
            by_priority=settings.scheduling == "priority",
        )
        self.stepper = Stepper(self.batch, clock, sleep)
        self.healthy = True
        self.closing = asyncio.Event()
        self.prompt_tokens = 0
        self._answers = Answers(settings.seed, settings.mean_output_tokens, settings.sigma_output_tokens)
        self._clock = clock
        self._wall_clock = wall_clock
        self._arrivals = count()

    def check_model(self, model: str | None) -> None:
        """Raises EngineError for a name that it does not serve."""
        if model and model not in self.settings.models:
            raise EngineError(404, f"The model `{model}` does not exist.", param="model")

    def heading(self, identity: str) -> Heading:
        return Heading(identity, int(self._wall_clock()), self.settings.models[0])

    def accept(
        self,
        body: AnswerBody,
        fields: dict[str, Any],
        headers: Headers,
        path: str,
        answer_format: AnswerFormat,
    ) -> Job:
        """Makes a job of a request, and draws its fault.

        Raises:
            EngineError: the request is refused.
        """
        body.check()
        self.check_model(body.model)
        text = body.text
        prompt_tokens = count_tokens(text)
        generation = self._generate(body, text, self._room(body, prompt_tokens))
        fault = self.faults.draw()
        sequence = Sequence(
            arrival=next(self._arrivals),
            priority=_priority(body, headers),
            prompt_tokens=prompt_tokens,
            length=generation.tokens,
            slowdown=fault.factor if fault is not None and fault.kind == "slow" else 1.0,
        )
        identity = answer_format.prefix + (headers.get("x-request-id") or body.request_id or uuid4().hex)
        record = RequestRecord(
            identity, path, fields, self._clock(), None if fault is None else fault.kind, sequence
        )
        self.records.add(record)
        return Job(body, self.heading(identity), generation, sequence, fault, record)

    @asynccontextmanager
    async def running(self, job: Job) -> AsyncIterator[AsyncGenerator[int, None]]:
        """Runs a job: how many tokens it has, whenever that grew. Its place is free after."""
        self.prompt_tokens += job.sequence.prompt_tokens
        async with aclosing(self.stepper.tokens(job.sequence)) as tokens:
            yield tokens

    def _room(self, body: AnswerBody, prompt_tokens: int) -> int:
        """The most tokens there can be of the answer."""
        limit, most = body.token_limit, self.settings.max_model_len
        if limit is not None and limit > most:
            raise EngineError(
                400, f"max_tokens={limit} is greater than max_model_len={most}", param="max_tokens"
            )
        if prompt_tokens > most:
            raise EngineError(
                400,
                f"This model's maximum context length is {most} tokens; the prompt has {prompt_tokens}.",
                param="input_tokens",
            )
        room = min(most - prompt_tokens, most if limit is None else limit)
        if room < 1:
            raise EngineError(400, f"max_tokens must be at least 1, got {room}", param="max_tokens")
        if body.min_tokens > room:
            raise EngineError(
                400,
                f"min_tokens must be at most max_tokens={room}, got {body.min_tokens}",
                param="min_tokens",
            )
        return room

    def _generate(self, body: AnswerBody, text: str, max_tokens: int) -> Generation:
        temperature = 1.0 if body.temperature is None else body.temperature
        return generate(
            self._answers.to(text, body.seed, temperature),
            max_tokens=max_tokens,
            min_tokens=body.min_tokens,
            ignore_eos=body.ignore_eos,
            stop=body.stop,
            include_stop=body.include_stop_str_in_output,
        )


def _priority(body: AnswerBody, headers: Headers) -> int:
    """As vLLM does: the header goes before the field, unless it is no number."""
    try:
        return int(headers.get("x-vllm-priority", ""))
    except ValueError:
        return body.priority
