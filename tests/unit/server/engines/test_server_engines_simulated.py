"""The simulated LLM: step times, chunked prefill, KV blocks, preemption by recomputation, answers."""

import asyncio
from collections.abc import Sequence

import pytest
from support.requests import make_profile, make_request

from rankserve.server.engines.contract import (
    Assignment,
    EngineSettings,
    Sampling,
    StepPlan,
    TokensProduced,
    make_engine,
)
from rankserve.server.engines.simulated.answers import output_length
from rankserve.server.engines.simulated.batch import SimulatedBatch
from rankserve.server.engines.simulated.engine import SimulatedEngine
from rankserve.server.engines.simulated.kv_blocks import KvBlockPool
from rankserve.server.engines.simulated.profiles import find_profile, profiles
from rankserve.server.errors import RequestError
from rankserve.server.scheduling.budget import EngineRoom
from rankserve.server.scheduling.policies import make_policy
from rankserve.server.scheduling.request import Request
from rankserve.server.scheduling.scheduler import Scheduler
from rankserve.server.simulation.virtual_server import VirtualServer


def virtual_server(policy: str = "fcfs", **profile: object) -> VirtualServer:
    return VirtualServer(Scheduler(make_policy(policy)), SimulatedBatch(make_profile(**profile)))


def test_step_time_is_the_published_linear_fit() -> None:
    profile = find_profile("h100-llama3-8b")
    step_ms = profile.step_ms(prefill_tokens=100, decode_sequences=10, context_tokens=5000)
    assert step_ms == pytest.approx(5.46 + 1.48 + 0.12 + 0.199)
    assert set(profiles()) >= {
        "a100-llama3-8b",
        "h100-llama3-8b",
        "a100-llama3-70b-tp4",
        "h100-llama3-70b-tp4",
    }


def test_a_long_prefill_is_cut_into_chunks_beside_running_decodes() -> None:
    server = virtual_server(max_batched_tokens=10, per_prefill_token_ms=1.0, per_decode_sequence_ms=100.0)
    server.submit([make_request("decoding", prompt_tokens=5, replay_output_tokens=50)])
    server.step()
    server.submit([make_request("long", prompt_tokens=20, replay_output_tokens=1)])
    seconds = []
    for _ in range(4):
        before_s = server.now_s
        server.step()
        seconds.append(server.now_s - before_s)
    # Nine tokens of budget remain beside the decode: chunks of 9, 9 and 2, the last of which answers.
    assert seconds == pytest.approx([1.109, 1.109, 1.102, 1.1])
    assert server.end_s("long") == pytest.approx(1.005 + 1.109 + 1.109 + 1.102)


def test_running_out_of_kv_blocks_preempts_the_worst_and_recomputes_its_prefix() -> None:
    server = virtual_server("ranking", kv_blocks=8, max_model_len=128, per_prefill_token_ms=1.0)
    requests = [
        make_request(name, score=score, prompt_tokens=48, replay_output_tokens=40)
        for name, score in (("better", 1.0), ("worse", 0.0))
    ]
    server.submit(requests)
    server.run()
    assert server.started == ["better", "worse", "worse"]
    assert server.end_s("better") < server.end_s("worse")
    assert {r.id: r.output_tokens for r in requests} == {"better": 40, "worse": 40}
    assert server.scheduler.preemptions_total == 1
    # 96 prompt tokens, and "worse" again with the 17 tokens it had produced by then.
    steps_s = server.scheduler.steps * 1.0
    assert server.now_s - steps_s == pytest.approx((48 + 48 + 48 + 17) / 1000)
    assert server.batch.kv.used == 0


def test_admission_leaves_a_watermark_while_something_runs() -> None:
    batch = SimulatedBatch(make_profile(kv_blocks=1000))
    assert batch.room().kv_blocks_reserved == 0
    batch.admit(make_request("running"), 10)
    assert batch.room() == EngineRoom(
        sequences=3, batched_tokens=2048 - 16, kv_blocks=999, kv_blocks_reserved=10, block_size=16
    )


def test_a_request_cancelled_within_a_step_produces_nothing() -> None:
    batch = SimulatedBatch(make_profile())
    request = make_request("gone")
    batch.admit(request, 10)
    assert batch.hold_blocks(lambda: None)
    step = batch.begin_step()
    assert step is not None
    batch.evict(request)
    assert batch.end_step(step) == []
    assert batch.kv.used == 0


def test_the_pool_gives_all_or_nothing() -> None:
    pool = KvBlockPool(total=4, block_size=16)
    assert pool.try_hold("a", 33)
    assert pool.used == 3
    assert not pool.try_hold("b", 17)
    assert pool.used == 3
    assert pool.try_hold("a", 48)
    assert pool.used == 3
    pool.release("a")
    pool.check_integrity()
    assert pool.free == 4


def test_answer_lengths_replay_are_clipped_and_seeded() -> None:
    assert output_length("r", replay_output_tokens=700, max_tokens=100) == 100
    assert output_length("r", replay_output_tokens=70, max_tokens=100) == 70
    drawn = [output_length(f"0:r{i}", None, 4096) for i in range(400)]
    assert drawn == [output_length(f"0:r{i}", None, 4096) for i in range(400)]
    assert drawn != [output_length(f"1:r{i}", None, 4096) for i in range(400)]
    assert 60 < sorted(drawn)[200] < 130


def test_an_answer_ends_by_stop_or_by_length() -> None:
    server = virtual_server()
    server.submit(
        [
            make_request("stops", replay_output_tokens=2),
            make_request("cut", replay_output_tokens=9, max_tokens=2),
        ]
    )
    server.step()
    assert {t.request.id: t.finished for t in server.step()} == {"stops": "stop", "cut": "length"}


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (EngineSettings(profile="b200"), "there are: a100-llama3-70b-tp4"),
        (EngineSettings(time_scale=0.0), "time scale"),
        (EngineSettings(max_sequences=4096), "max_batched_tokens"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: EngineSettings, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        make_engine("simulated", settings)


def test_few_kv_blocks_shorten_what_the_model_takes() -> None:
    assert SimulatedEngine(EngineSettings(kv_blocks=10)).capacity.max_model_len == 160


class _Host:
    """A scheduler behind the engine contract, on a clock that the test moves."""

    def __init__(self) -> None:
        self.scheduler = Scheduler(make_policy("fcfs"))
        self.now_s = 0.0
        self.token_times_s: list[float] = []
        self.done = asyncio.Event()
        self.sampling = Sampling()
        self.tokens: dict[str, int] = {}

    def plan(self, room: EngineRoom) -> StepPlan:
        plan = self.scheduler.plan(self.now_s, room)
        return StepPlan([Assignment(r, "", self.sampling) for r in plan.started], plan.evicted)

    def returned(self, request: Request) -> None:
        raise AssertionError("a simulated LLM loses nothing")

    def failed(self, request: Request, error: RequestError) -> None:
        raise AssertionError("a simulated LLM loses nothing")

    def select_victim(self) -> Request | None:
        return self.scheduler.select_victim(self.now_s)

    def produced(self, tokens: Sequence[TokensProduced]) -> None:
        for token in tokens:
            self.token_times_s.append(self.now_s)
            self.tokens[token.request.id] = token.request.output_tokens
            if token.finished:
                self.scheduler.end(token.request)
                self.done.set()

    def step_done(self) -> None:
        self.scheduler.step_done()


async def test_real_time_is_simulated_time_over_the_scale_and_lateness_does_not_add_up() -> None:
    host = _Host()
    late_s = iter([0.5, 0.0, 0.0, 0.0])

    async def sleep(seconds: float) -> None:
        host.now_s += seconds + next(late_s)
        await asyncio.sleep(0)

    settings = EngineSettings(profile="a100-llama3-8b", time_scale=2.0)
    engine = SimulatedEngine(settings, clock=lambda: host.now_s, sleep=sleep)
    host.scheduler.submit(make_request("r", prompt_tokens=1000, replay_output_tokens=4))
    running = asyncio.create_task(engine.run(host))
    await host.done.wait()
    profile = find_profile("a100-llama3-8b")
    steps_ms = [profile.step_ms(prefill_tokens=1000, decode_sequences=0, context_tokens=0)] + [
        profile.step_ms(prefill_tokens=0, decode_sequences=1, context_tokens=1000 + n) for n in (0, 1, 2)
    ]
    on_time_s = [sum(steps_ms[: n + 1]) / 1000 / 2 for n in range(4)]
    # The first step ended half a second late; the others, due before that, follow without a pause.
    assert host.token_times_s[0] == pytest.approx(on_time_s[0] + 0.5)
    assert host.token_times_s[1:] == pytest.approx([on_time_s[0] + 0.5] * 3)
    assert engine.lag == pytest.approx(0.5 / on_time_s[3])
    running.cancel()


async def test_an_idle_engine_wakes_for_new_work() -> None:
    host = _Host()

    async def sleep(seconds: float) -> None:
        host.now_s += seconds
        await asyncio.sleep(0)

    engine = SimulatedEngine(EngineSettings(), clock=lambda: host.now_s, sleep=sleep)
    running = asyncio.create_task(engine.run(host))
    await asyncio.sleep(0)
    host.scheduler.submit(make_request("r", replay_output_tokens=1))
    engine.wake()
    await asyncio.wait_for(host.done.wait(), 10)
    assert engine.kv_blocks_used == 0
    running.cancel()


@pytest.mark.parametrize(("seed", "same"), [(7, True), (None, False)])
async def test_a_sampling_seed_gives_the_same_answer_under_any_id(seed: int | None, same: bool) -> None:
    host = _Host()
    host.sampling = Sampling(seed=seed)

    async def sleep(seconds: float) -> None:
        host.now_s += seconds
        await asyncio.sleep(0)

    engine = SimulatedEngine(EngineSettings(), clock=lambda: host.now_s, sleep=sleep)
    for name in ("one", "two"):
        host.scheduler.submit(make_request(name, max_tokens=4000))
    running = asyncio.create_task(engine.run(host))
    while host.scheduler.waiting or host.scheduler.running or not host.tokens:
        await asyncio.sleep(0)
    assert (host.tokens["one"] == host.tokens["two"]) is same
    running.cancel()


async def test_lateness_of_every_busy_period_counts() -> None:
    host = _Host()

    async def sleep(seconds: float) -> None:
        host.now_s += seconds + 0.01
        await asyncio.sleep(0)

    engine = SimulatedEngine(EngineSettings(), clock=lambda: host.now_s, sleep=sleep)
    running = asyncio.create_task(engine.run(host))
    for number in range(5):
        host.done.clear()
        host.scheduler.submit(make_request(f"r{number}", replay_output_tokens=1))
        engine.wake()
        await asyncio.wait_for(host.done.wait(), 10)
        await asyncio.sleep(0)
    step_s = (
        find_profile("a100-llama3-8b").step_ms(prefill_tokens=16, decode_sequences=0, context_tokens=0) / 1e3
    )
    assert engine.lag == pytest.approx(0.01 / step_s)
    running.cancel()
