"""What an engine is, and what it may ask of its host.

The host owns the queue and every choice of victim; the engine owns the packing of its steps. An engine runs
as one asyncio task: whenever it has room it asks the host whom to start, when its KV cache is full it asks
for a victim, and it reports what each step produced. Engines of other packages register under the entry
point group ``rankserve.engines``: a callable that takes an `EngineSettings` and returns an `Engine`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

from rankserve.server.errors import RequestError
from rankserve.server.scheduling.budget import EngineRoom
from rankserve.server.scheduling.request import Request

ENTRY_POINT_GROUP = "rankserve.engines"


@dataclass(slots=True, frozen=True)
class EngineSettings:
    """What the server was told about its engine; None leaves a value to the engine's profile.

    Attributes:
        profile: the engine's named set of parameters.
        max_sequences: batch cap in sequences.
        max_batched_tokens: batch cap in tokens for one step.
        kv_blocks: KV blocks in total.
        swaps: whether preempted requests keep their KV cache on the host; else they recompute it.
        time_scale: simulated seconds per wall-clock second.
        seed: of the engine's own draws.
        endpoint_urls: of servers of the OpenAI API, with commas between.
        endpoint_file: says which there are, instead.
        model: as they call it; empty for their first.
        dialect: what they can do beyond that API; empty for what they say they are.
        engine_priority: how their own queues order by priority: "off", "lower-first", "higher-first".
        api_key_file: holds the key they want.
        endpoint_timeout_s: silence after which an answer counts as lost.
    """

    profile: str = ""
    max_sequences: int | None = None
    max_batched_tokens: int | None = None
    kv_blocks: int | None = None
    swaps: bool = False
    time_scale: float = 1.0
    seed: int = 0
    endpoint_urls: str = ""
    endpoint_file: Path | None = None
    model: str = ""
    dialect: str = ""
    engine_priority: str = "off"
    api_key_file: Path | None = None
    endpoint_timeout_s: float = 300.0


@dataclass(slots=True, frozen=True)
class EndpointState:
    """One of the servers that an engine drives, as `EndpointStats` tells it; None is what it does not say."""

    url: str
    model: str
    circuit: str
    in_flight: int
    limit: int
    running: int | None = None
    waiting: int | None = None
    kv_usage: float | None = None


@dataclass(slots=True, frozen=True)
class EngineCapacity:
    """What an engine can hold.

    Attributes:
        max_sequences: sequences in one step.
        max_batched_tokens: tokens in one step, prefill and decode together.
        max_model_len: longest prompt plus answer in tokens.
        kv_blocks: KV blocks in total.
        block_size: tokens a KV block holds.
        steps: whether it reports every step, so that starvation can be counted in steps.
        preempts: whether it can drop a running request and resume it later.
        counts_tokens: whether its `count_tokens` is exact; else it refuses by itself what is too long.
        resumes: whether it can go on with an answer that it is given the beginning of.
        restart_steps_per_token: time to bring back one token's KV after that, in decode steps.
    """

    max_sequences: int
    max_batched_tokens: int
    max_model_len: int
    kv_blocks: int
    block_size: int = 16
    steps: bool = True
    preempts: bool = False
    resumes: bool = False
    counts_tokens: bool = True
    restart_steps_per_token: float = 0.0


@dataclass(slots=True, frozen=True)
class Sampling:
    """How to sample an answer; None leaves a value to the engine. `max_tokens` is the request's own."""

    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None


@dataclass(slots=True, frozen=True)
class ChatMessage:
    """One turn of a chat."""

    role: str
    content: str


# Text to complete, or a chat to go on with.
Prompt = str | tuple[ChatMessage, ...]


def text_of(prompt: Prompt) -> str:
    """A prompt as one text."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(f"{message.role}: {message.content}" for message in prompt)


@dataclass(slots=True, frozen=True)
class Assignment:
    """A request to start, and what the engine is to answer: the scheduler sees no prompts.

    Attributes:
        request: the scheduler's view of it.
        prompt: what to answer.
        sampling: how.
        answer: the text of `request.output_tokens` tokens that clients have already: it goes on from there.
        key: its place in the order; smaller is sooner, minus infinity if it had waited for too long.
    """

    request: Request
    prompt: Prompt
    sampling: Sampling
    answer: str = ""
    key: float = 0.0


@dataclass(slots=True, frozen=True)
class StepPlan:
    """What to do before a step: first drop, then start. A request may be in both.

    Attributes:
        starting: requests to start, in order.
        evicted: running requests to drop; they resume later.
    """

    starting: Sequence[Assignment]
    evicted: Sequence[Request] = ()


@dataclass(slots=True, frozen=True)
class TokensProduced:
    """New tokens of one request, which `request.output_tokens` counts already.

    Attributes:
        request: whose.
        count: how many; 0 only at the end.
        text: of all of them.
        finished: "stop", "length", or "" if the answer goes on.
        input_tokens: at the end, the prompt's length as the LLM counted it; 0 if that is not known.
    """

    request: Request
    count: int
    text: str
    finished: str = ""
    input_tokens: int = 0


class EngineHost(Protocol):
    """What an engine asks of whoever runs it. None of these block."""

    def plan(self, room: EngineRoom) -> StepPlan:
        """What to start now, the requests count as running; and, from engines that preempt, what to drop."""
        ...

    def select_victim(self) -> Request | None:
        """A running request that is to give up its KV blocks; the host has queued it again."""
        ...

    def produced(self, tokens: Sequence[TokensProduced]) -> None:
        """What a step produced. Finished requests hold nothing in the engine any more."""
        ...

    def step_done(self) -> None:
        """A step was executed; called after `produced`, by engines whose capacity says `steps`."""
        ...

    def returned(self, request: Request) -> None:
        """A started request was lost and can be started again: it goes back to its place in the queue."""
        ...

    def failed(self, request: Request, error: RequestError) -> None:
        """A started request was lost for good."""
        ...


class Engine(Protocol):
    """One LLM, simulated or real."""

    @property
    def name(self) -> str:
        """For people: what it is, e.g. "simulated/a100-llama3-8b"."""
        ...

    @property
    def capacity(self) -> EngineCapacity:
        """What it can hold at the moment; asked for often."""
        ...

    @property
    def models(self) -> Sequence[str]:
        """Whom clients may ask for, each with a queue of its own; the first answers who asks for nobody."""
        ...

    @property
    def time_scale(self) -> float:
        """Simulated seconds per wall-clock second; 1 for real engines."""
        ...

    @property
    def kv_blocks_used(self) -> int: ...

    @property
    def lag(self) -> float:
        """How far it fell behind its own clock, as a fraction of its busy time; 0 for real engines."""
        ...

    def endpoint_states(self) -> Sequence[EndpointState]:
        """The servers it drives; none if it is part of this one."""
        ...

    def count_tokens(self, prompt: str) -> int:
        """The prompt's length in this engine's tokens, at least 1."""
        ...

    async def prepare(self) -> None:
        """Learns what it needs before its first request. Raises ValueError if it cannot serve like this."""
        ...

    async def run(self, host: EngineHost) -> None:
        """Serves until cancelled."""
        ...

    def wake(self) -> None:
        """There may be something new to plan."""
        ...

    def evict(self, request: Request) -> None:
        """Drops a request it holds, at once: slot and KV blocks are free when this returns."""
        ...


class UnknownEngineError(ValueError):
    """No engine of that name."""


def make_engine(name: str, settings: EngineSettings) -> Engine:
    """The engine registered under a name.

    Raises:
        UnknownEngineError: lists the names there are.
        ValueError: settings the engine refuses.
    """
    registered = {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}
    if name not in registered:
        raise UnknownEngineError(f"unknown engine {name!r}; there are: {', '.join(sorted(registered))}")
    factory: Callable[[EngineSettings], Engine] = registered[name].load()
    return factory(settings)
