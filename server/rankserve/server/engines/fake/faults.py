"""What goes wrong on demand, and for whom."""

import math
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

FaultKind = Literal[
    "error",
    "overloaded",
    "hang",
    "cut",
    "slow",
    "wrong_usage",
    "no_usage",
    "error_event",
    "garbage",
    "no_done",
]
FAULT_KINDS: tuple[FaultKind, ...] = get_args(FaultKind)
# What happens within an answer; the others happen before, or to all of it.
MID_ANSWER: tuple[FaultKind, ...] = ("hang", "cut", "error_event", "garbage", "no_done")
_AFTER_TOKENS = 3
_SLOW_FACTOR = 10.0
_USAGE_FACTOR = 2.0


@dataclass(slots=True, frozen=True)
class Fault:
    """One way to fail, and to whom it happens.

    Attributes:
        kind: "error" answers 500, "overloaded" 503 with Retry-After, "hang" never answers, "cut" closes the
            connection, "slow" multiplies latencies, "wrong_usage" reports tokens that were not, "no_usage"
            reports none, "error_event" ends the stream with an error in it, "garbage" cuts the JSON of one
            chunk in half, which loses its text, "no_done" ends the stream without finish reason or [DONE].
        probability: that it happens to a request.
        next_requests: how many of the next requests it happens to, whatever the probability.
        after_tokens: for hang, cut, error_event, garbage, no_done: tokens sent before. An answer that is
            shorter meets its fault before its last token. A hang after 0 tokens does not even send a status.
        factor: for slow and wrong_usage.
        status: of overloaded; 429 or 503.
        retry_after_s: of overloaded.
    """

    kind: FaultKind
    probability: float = 0.0
    next_requests: int = 0
    after_tokens: int = _AFTER_TOKENS
    factor: float = 1.0
    status: int = 503
    retry_after_s: int = 1

    def __post_init__(self) -> None:
        if self.kind not in FAULT_KINDS:
            raise ValueError(f"there is no fault {self.kind!r}; there are {', '.join(FAULT_KINDS)}")
        if not 0 <= self.probability <= 1:
            raise ValueError(f"the probability of {self.kind} must be 0 to 1, got {self.probability}")
        if min(self.next_requests, self.after_tokens, self.retry_after_s) < 0:
            raise ValueError(f"the numbers of {self.kind} must not be negative")
        if self.status not in (429, 503):
            raise ValueError(f"status must be 429 or 503, got {self.status}")
        if not (math.isfinite(self.factor) and self.factor > 0):
            raise ValueError(f"factor must be above 0, got {self.factor}")


class Faults:
    """Chooses the fault of each request: none or one, seeded, and changeable at any time.

    Args:
        seed: of the choice.
        probabilities: of kinds that are set from the start.
    """

    def __init__(self, seed: int = 0, probabilities: Mapping[FaultKind, float] | None = None) -> None:
        self.injected: Counter[FaultKind] = Counter()
        self._random = random.Random(seed)
        self._faults: dict[FaultKind, Fault] = {}
        for kind, probability in (probabilities or {}).items():
            self.set(kind, probability=probability)

    def set(
        self,
        kind: FaultKind,
        *,
        probability: float = 0.0,
        next_requests: int = 0,
        after_tokens: int | None = None,
        factor: float | None = None,
        status: int = 503,
        retry_after_s: int = 1,
    ) -> None:
        """Sets one kind of fault, in place of what was set of that kind; see `Fault` for the arguments.

        Raises:
            ValueError: an argument is out of bounds, or the probabilities of all kinds exceed 1.
        """
        if after_tokens is None:
            after_tokens = 0 if kind == "hang" else _AFTER_TOKENS
        if factor is None:
            factor = _SLOW_FACTOR if kind == "slow" else _USAGE_FACTOR
        fault = Fault(kind, probability, next_requests, after_tokens, factor, status, retry_after_s)
        self._use({**self._faults, kind: fault})

    def set_all(self, faults: Mapping[FaultKind, Mapping[str, Any]]) -> None:
        """Sets several kinds, or none if one of them is wrong; see `set`."""
        before = self._faults
        self._faults = {kind: fault for kind, fault in before.items() if kind not in faults}
        try:
            for kind, arguments in faults.items():
                self.set(kind, **arguments)
        except ValueError:
            self._faults = before
            raise

    def clear(self) -> None:
        """From now on nothing goes wrong."""
        self._faults = {}

    def draw(self) -> Fault | None:
        """The fault of the next request: one that counts down first, else by chance."""
        # Drawn either way, so that a countdown does not change who else meets a fault.
        chance = self._random.random()
        chosen = next((fault for fault in self._faults.values() if fault.next_requests), None)
        if chosen is not None:
            left = replace(chosen, next_requests=chosen.next_requests - 1)
            self._faults[chosen.kind] = left
        else:
            chosen = self._by_chance(chance)
        if chosen is not None:
            self.injected[chosen.kind] += 1
        return chosen

    def to_json(self) -> dict[str, Any]:
        return {
            "faults": {
                kind: {name: value for name, value in asdict(fault).items() if name != "kind"}
                for kind, fault in self._faults.items()
            },
            "injected": dict(self.injected),
        }

    def _use(self, faults: dict[FaultKind, Fault]) -> None:
        check_probabilities({kind: fault.probability for kind, fault in faults.items()})
        self._faults = faults

    def _by_chance(self, chance: float) -> Fault | None:
        for fault in self._faults.values():
            chance -= fault.probability
            if chance < 0:
                return fault
        return None


def check_probabilities(probabilities: Mapping[FaultKind, float]) -> None:
    """Raises ValueError for unknown kinds, and for probabilities that are none or exceed 1 together."""
    for kind, probability in probabilities.items():
        Fault(kind, probability)
    # The sum of ten tenths is above 1.
    if math.fsum(probabilities.values()) > 1 + 1e-9:
        raise ValueError("the probabilities of all faults must be at most 1 together")


def parse_probabilities(text: str) -> dict[FaultKind, float]:
    """Kinds and probabilities, such as ``error=0.1,cut=0.05``.

    Raises:
        ValueError: the text is none of that form.
    """
    probabilities: dict[FaultKind, float] = {}
    for part in filter(None, text.replace(" ", "").split(",")):
        name, _, value = part.partition("=")
        kind = next((kind for kind in FAULT_KINDS if kind == name), None)
        if kind is None:
            raise ValueError(f"there is no fault {name!r}; there are {', '.join(FAULT_KINDS)}")
        try:
            probabilities[kind] = float(value)
        except ValueError:
            raise ValueError(f"the probability of {kind} must be a number, got {value!r}") from None
    return probabilities
