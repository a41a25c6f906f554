"""The simulated LLM in real time: its steps take their simulated duration divided by the time scale."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from time import monotonic

from rankserve.server.engines.contract import Assignment, EngineCapacity, EngineHost, EngineSettings
from rankserve.server.engines.simulated.answers import output_length
from rankserve.server.engines.simulated.batch import SimulatedBatch
from rankserve.server.engines.simulated.profile import Profile
from rankserve.server.engines.simulated.profiles import find_profile
from rankserve.server.scheduling.request import Request

DEFAULT_PROFILE = "a100-llama3-8b"
# Characters per token of English text in current LLM tokenizers.
_CHARACTERS_PER_TOKEN = 4


class SimulatedEngine:
    """Drives a `SimulatedBatch` by the clock.

    Within a busy period each step ends a fixed time after the one before, however late the event loop was:
    lateness does not add up. `lag` reports the most it was in each busy period.
    """

    def __init__(
        self,
        settings: EngineSettings,
        *,
        clock: Callable[[], float] = monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        if not 0 < settings.time_scale <= 1000:
            raise ValueError(f"time scale must be above 0 and at most 1000, got {settings.time_scale}")
        profile = find_profile(settings.profile or DEFAULT_PROFILE)
        given = {
            name: getattr(settings, name)
            for name in ("max_sequences", "max_batched_tokens", "kv_blocks")
            if getattr(settings, name) is not None
        }
        if "kv_blocks" in given:
            given["max_model_len"] = min(profile.max_model_len, given["kv_blocks"] * profile.block_size)
        self._batch = SimulatedBatch(replace(profile, **given), swaps=settings.swaps)
        self.name = f"simulated/{profile.name}"
        self.models = (self.name,)
        self.capacity = _capacity(self._batch.profile, swaps=settings.swaps)
        self._seed = settings.seed
        self._time_scale = settings.time_scale
        self._clock = clock
        self._sleep = sleep
        self._wake = asyncio.Event()
        self._busy_s = 0.0
        self._most_late_s = 0.0
        self._lost_s = 0.0

    @property
    def time_scale(self) -> float:
        return self._time_scale

    @property
    def kv_blocks_used(self) -> int:
        return self._batch.kv.used

    @property
    def lag(self) -> float:
        return (self._lost_s + self._most_late_s) / self._busy_s if self._busy_s else 0.0

    def endpoint_states(self) -> tuple[()]:
        return ()

    def count_tokens(self, prompt: str) -> int:
        return max(1, len(prompt) // _CHARACTERS_PER_TOKEN)

    async def prepare(self) -> None: ...

    async def run(self, host: EngineHost) -> None:
        step_end_s: float | None = None
        while True:
            if self._batch.hold_blocks(host.select_victim):
                plan = host.plan(self._batch.room())
                for request in plan.evicted:
                    self._batch.preempt(request)
                for assignment in plan.starting:
                    self._batch.admit(assignment.request, self._output_length(assignment))
            step = self._batch.begin_step()
            if step is None:
                self._batch.kv.check_integrity()
                step_end_s = None
                self._lost_s += self._most_late_s
                self._most_late_s = 0.0
                self._wake.clear()
                await self._wake.wait()
                continue
            duration_s = step.duration_ms / 1000 / self._time_scale
            step_end_s = (self._clock() if step_end_s is None else step_end_s) + duration_s
            await self._sleep(max(0.0, step_end_s - self._clock()))
            self._busy_s += duration_s
            self._most_late_s = max(self._most_late_s, self._clock() - step_end_s)
            host.produced(self._batch.end_step(step))
            host.step_done()

    def wake(self) -> None:
        self._wake.set()

    def evict(self, request: Request) -> None:
        self._batch.evict(request)

    def _output_length(self, assignment: Assignment) -> int:
        request, seed = assignment.request, assignment.sampling.seed
        # A request that asks for a seed gets the same answer whatever its id.
        identity = f"{self._seed}:{request.id if seed is None else seed}"
        return output_length(identity, request.replay_output_tokens, request.max_tokens)


def _capacity(profile: Profile, *, swaps: bool) -> EngineCapacity:
    return EngineCapacity(
        max_sequences=profile.max_sequences,
        max_batched_tokens=profile.max_batched_tokens,
        max_model_len=profile.max_model_len,
        kv_blocks=profile.kv_blocks,
        block_size=profile.block_size,
        preempts=True,
        resumes=True,
        restart_steps_per_token=profile.restart_steps_per_token(swaps=swaps),
    )
