"""Continuous batching, one step at a time and without a clock.

Each step gives every running request that is past its prefill one token. Before it, if the KV cache cannot
hold what the step adds, the last in order yields and waits again, keeping what it produced; unless that
happened, waiting requests start while there is room. The order is by arrival, or by priority, then arrival.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

# Between two looks at prefills, where nothing else sets a pace.
_LOOK_S = 0.001


@dataclass(slots=True, eq=False)
class Sequence:
    """A request as the batch sees it.

    Attributes:
        arrival: its place in the order of arrival.
        priority: lower is sooner.
        prompt_tokens: of its prompt.
        length: tokens to produce.
        slowdown: factor of its latencies.
        produced: tokens so far.
        preemptions: how often it yielded.
        start_order, first_token_order: its place among all that started, and that had a first token.
        ready_s: when its next token can be, at the earliest.
    """

    arrival: int
    priority: int
    prompt_tokens: int
    length: int
    slowdown: float = 1.0
    produced: int = 0
    preemptions: int = 0
    start_order: int | None = None
    first_token_order: int | None = None
    ready_s: float = 0.0

    @property
    def kv_tokens(self) -> int:
        """What it holds of the KV cache while it runs."""
        return self.prompt_tokens + self.produced

    @property
    def finished(self) -> bool:
        return self.produced >= self.length


Key = tuple[int, int]


@dataclass(slots=True)
class Batch:
    """Who waits and who runs.

    Attributes:
        max_num_seqs, kv_tokens: its room.
        ttft_s, itl_s, itl_per_sequence_s: its pace.
        by_priority: whether priority goes before arrival.
        preemptions: how often a request had to yield.
        tokens_produced: by all, so far.
    """

    max_num_seqs: int
    kv_tokens: int
    ttft_s: float
    itl_s: float
    itl_per_sequence_s: float
    by_priority: bool
    preemptions: int = 0
    tokens_produced: int = 0
    running: list[Sequence] = field(default_factory=list)
    _waiting: dict[Key, Sequence] = field(default_factory=dict)
    _queue: list[Key] = field(default_factory=list)
    _duration_s: float = 0.0
    _starts: Callable[[], int] = field(default_factory=lambda: count().__next__)
    _first_tokens: Callable[[], int] = field(default_factory=lambda: count().__next__)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def kv_used(self) -> int:
        return sum(sequence.kv_tokens for sequence in self.running)

    def add(self, sequence: Sequence) -> None:
        key = self._key(sequence)
        self._waiting[key] = sequence
        heapq.heappush(self._queue, key)

    def remove(self, sequence: Sequence) -> None:
        """Drops a sequence, if it is here; its room is free at once."""
        if sequence in self.running:
            self.running.remove(sequence)
        self._waiting.pop(self._key(sequence), None)

    def begin_step(self, now_s: float) -> float | None:
        """Decides who takes part in the step that begins now; returns how long it takes, None for no step."""
        if not self._make_room():
            self._start_waiting(now_s)
        if not self.running:
            return None
        self._duration_s = self.itl_s + self.itl_per_sequence_s * len(self.running)
        if not self._duration_s:
            until_s = min(sequence.ready_s for sequence in self.running) - now_s
            self._duration_s = min(max(0.0, until_s), _LOOK_S)
        return self._duration_s

    def end_step(self, now_s: float) -> list[Sequence]:
        """Those that have one token more; finished ones are gone."""
        produced = [sequence for sequence in self.running if sequence.ready_s <= now_s]
        for sequence in produced:
            sequence.produced += 1
            if sequence.slowdown > 1:
                # Half a step less, or rounding would cost a whole one.
                sequence.ready_s = now_s + (sequence.slowdown - 0.5) * self._duration_s
            if sequence.first_token_order is None:
                sequence.first_token_order = self._first_tokens()
        self.tokens_produced += len(produced)
        self.running = [sequence for sequence in self.running if not sequence.finished]
        return produced

    def _make_room(self) -> bool:
        """Returns whether anybody had to yield."""
        yielded = False
        while self.kv_used > self.kv_tokens:
            victim = max(self.running, key=self._key)
            self.running.remove(victim)
            victim.preemptions += 1
            self.preemptions += 1
            self.add(victim)
            yielded = True
        return yielded

    def _start_waiting(self, now_s: float) -> None:
        while self._queue and len(self.running) < self.max_num_seqs:
            sequence = self._waiting.get(self._queue[0])
            if sequence is None:
                heapq.heappop(self._queue)
                continue
            if self.kv_used + sequence.kv_tokens > self.kv_tokens:
                return
            del self._waiting[heapq.heappop(self._queue)]
            if sequence.start_order is None:
                sequence.start_order = self._starts()
            sequence.ready_s = now_s + self.ttft_s * sequence.slowdown
            self.running.append(sequence)

    def _key(self, sequence: Sequence) -> Key:
        return (sequence.priority if self.by_priority else 0, sequence.arrival)
