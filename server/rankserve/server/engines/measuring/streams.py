"""Streams of one engine that decode side by side, and single prefills beside them."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager

from rankserve.server.engines.measuring.engine import MeasuredEngine
from rankserve.server.engines.measuring.errors import MeasureError
from rankserve.server.engines.measuring.timing import Arrival

_NO_USAGE = (
    " tells no usage with each chunk (stream_options.continuous_usage_stats, which vLLM and SGLang know), so"
    " that its steps cannot be seen"
)


class TokenStream:
    """One answer and when its tokens came.

    Attributes:
        arrivals: of its tokens, so far.
        prompt_tokens: as the engine counts them, once the first token is there.
    """

    def __init__(
        self, engine: MeasuredEngine, prompt: str, max_tokens: int, clock: Callable[[], float]
    ) -> None:
        self.arrivals: list[Arrival] = []
        self.prompt_tokens = 0
        self.sent_s = 0.0
        self._engine = engine
        self._prompt = prompt
        self._max_tokens = max_tokens
        self._clock = clock
        self._grown = asyncio.Event()
        self._end: MeasureError | None = None

    @property
    def tokens(self) -> int:
        return self.arrivals[-1].tokens if self.arrivals else 0

    async def run(self) -> None:
        """Reads it to its end. What goes wrong is told to who waits in `reach`."""
        try:
            await self._read()
            self._end = MeasureError(
                f"a stream ended after {self.tokens} tokens, of {self._max_tokens} asked for: does the engine"
                " know ignore_eos, and is its max_model_len larger?"
            )
        except MeasureError as error:
            self._end = error
        finally:
            self._grown.set()

    async def reach(self, tokens: int) -> None:
        """Waits until it has so many. Raises MeasureError: it never will."""
        while self.tokens < tokens:
            if self._end is not None:
                raise self._end
            self._grown.clear()
            await self._grown.wait()

    async def _read(self) -> None:
        self.sent_s = self._clock()
        async with aclosing(self._engine.stream(self._prompt, self._max_tokens)) as chunks:
            async for chunk in chunks:
                now_s = self._clock()
                if chunk.usage is None:
                    raise MeasureError(f"{self._engine.url}{_NO_USAGE}")
                if chunk.usage.completion_tokens > self.tokens:
                    self.prompt_tokens = chunk.usage.prompt_tokens
                    self.arrivals.append(Arrival(now_s, chunk.usage.completion_tokens))
                    self._grown.set()


@asynccontextmanager
async def decoding(streams: Sequence[TokenStream]) -> AsyncGenerator[None]:
    """Runs streams; at the end their connections are closed, so that the engine drops them."""
    tasks = [asyncio.create_task(stream.run()) for stream in streams]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def whole_answer(
    engine: MeasuredEngine, prompt: str, clock: Callable[[], float], tokens: int = 1
) -> TokenStream:
    """Sends a prompt, alone or beside others, and reads its answer to the end. Raises MeasureError."""
    stream = TokenStream(engine, prompt, tokens, clock)
    await stream.run()
    await stream.reach(tokens)
    return stream
