"""A bound on waiting that follows FCFS: nobody waits much longer than the longest wait it would have given.

How long FCFS makes a new arrival wait does not depend on the order of those before it, only on their work:
all that waits has to be served first. So that wait is known while another order is in force. The largest of
late is the bound: a request that has waited so long is due. Before it the order is free. The bound needs no
tuning to the load, and follows it up and down.

What is counted as work is output tokens, and prompt tokens at a fraction of that. Outputs are not known in
advance: a regression on the answers that finished turns predictions into expected lengths, whatever the
ranker's scale, and how well these agreed says how far the predictions can be trusted at all.
"""

import math
from dataclasses import dataclass

from rankserve.server.scheduling.request import Request

# Prefilling a prompt token over decoding one token in a full batch: 0.15-0.26 for Llama-3 on A100 and H100.
PROMPT_TOKEN_WORK = 0.2
# Answers that the regression remembers, and how many its prior belief (predictions are right) weighs.
LENGTH_MEMORY = 1024
LENGTH_PRIOR = 32
# Ends of requests in one measurement of the pace, and measurements remembered.
PACE_WINDOW = 8
PACE_MEMORY = 256
# Predictions are trusted in full from a correlation of a third on, which is a Kendall's tau of about 0.2.
TRUST = 3.0


@dataclass(slots=True, frozen=True)
class FcfsBoundSettings:
    """How close to FCFS the longest wait is kept.

    Attributes:
        share: of FCFS's largest wait after which a request is due.
        forgetting: by how many seconds a second the largest wait is forgotten.
        express_share: work that may overtake due requests, per unit of due work started.
        express_size: the most work of a request that overtakes, as a fraction of the due one's.
        ageing: by how much the logarithm of a request's size may be larger for each bound's length of time
            that it came earlier than another.
    """

    share: float = 0.98
    forgetting: float = 0.05
    express_share: float = 0.2
    express_size: float = 1 / 3
    ageing: float = 0.15

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")


class LengthModel:
    """Expected output tokens given a prediction: a line through the answers that finished."""

    __slots__ = ("_actual", "_count", "_predicted", "_product", "_square", "intercept", "slope")

    def __init__(self) -> None:
        self.slope, self.intercept = 1.0, 0.0
        self._count = self._predicted = self._actual = self._square = self._product = 0.0

    def observe(self, predicted: float, actual: int) -> None:
        """An answer finished."""
        keep = 1 - 1 / LENGTH_MEMORY
        self._count = keep * self._count + 1
        self._predicted = keep * self._predicted + predicted
        self._actual = keep * self._actual + actual
        self._square = keep * self._square + predicted * predicted
        self._product = keep * self._product + predicted * actual
        mean_predicted, mean_actual = self._predicted / self._count, self._actual / self._count
        variance = self._square / self._count - mean_predicted * mean_predicted
        covariance = self._product / self._count - mean_predicted * mean_actual
        self.slope = 1.0
        if variance > 1e-9 * mean_predicted * mean_predicted:
            weight = self._count
            self.slope = (weight * covariance / variance + LENGTH_PRIOR) / (weight + LENGTH_PRIOR)
        self.intercept = mean_actual - self.slope * mean_predicted

    @property
    def mean_predicted(self) -> float:
        """Of late; 1 before anything finished."""
        return self._predicted / self._count if self._count else 1.0

    def tokens(self, count: int, predicted_sum: float) -> float:
        """Expected output tokens of so many answers with this sum of predictions, at least one each."""
        return max(self.intercept * count + self.slope * predicted_sum, float(count))


class Agreement:
    """How well predictions order answers: the correlation of the logarithms of both, of late.

    Logarithms, so that it does not matter how far apart the ranker puts long answers.
    """

    __slots__ = ("_actual", "_actual_square", "_count", "_predicted", "_predicted_square", "_product")

    def __init__(self) -> None:
        self._count = self._predicted = self._actual = 0.0
        self._predicted_square = self._actual_square = self._product = 0.0

    def observe(self, predicted: float, actual: int) -> None:
        """An answer finished."""
        keep = 1 - 1 / LENGTH_MEMORY
        # An answer may be empty: a real engine's, which ends at once.
        x, y = math.log(max(predicted, 1.0)), math.log(max(actual, 1))
        self._count = keep * self._count + 1
        self._predicted = keep * self._predicted + x
        self._actual = keep * self._actual + y
        self._predicted_square = keep * self._predicted_square + x * x
        self._actual_square = keep * self._actual_square + y * y
        self._product = keep * self._product + x * y

    @property
    def trust(self) -> float:
        """0 to 1; at 0 the bound is 0, which is FCFS. At first predictions are believed."""
        n = self._count
        x_variance = n * self._predicted_square - self._predicted * self._predicted
        y_variance = n * self._actual_square - self._actual * self._actual
        if x_variance <= 1e-9 * n * n or y_variance <= 1e-9 * n * n:
            return 1.0
        covariance = n * self._product - self._predicted * self._actual
        correlation = covariance / math.sqrt(x_variance * y_variance)
        return min(1.0, max(0.0, TRUST * (n * correlation + LENGTH_PRIOR) / (n + LENGTH_PRIOR)))


class Pace:
    """Seconds that an engine with a queue needs for a unit of work: least squares over short spans."""

    __slots__ = ("_ends", "_since_s", "_square", "_time", "_work", "seconds_per_work")

    def __init__(self) -> None:
        self.seconds_per_work = 0.0
        self._square = self._time = 0.0
        self.restart(0.0)

    def restart(self, now_s: float) -> None:
        """A span begins: from now on there is a queue."""
        self._since_s, self._work, self._ends = now_s, 0.0, 0

    def worked(self, work: float) -> None:
        self._work += work

    def ended(self) -> None:
        self._ends += 1

    def look(self, now_s: float) -> bool:
        """Measures the span, if it is long enough, and begins the next; returns whether it did."""
        if self._ends < PACE_WINDOW:
            return False
        keep = 1 - 1 / PACE_MEMORY
        self._square = keep * self._square + self._work * self._work
        self._time = keep * self._time + (now_s - self._since_s) * self._work
        self.seconds_per_work = self._time / self._square
        self.restart(now_s)
        return True


class FcfsBound:
    """The bound, and the express lane past due requests. Every operation is O(1).

    While requests are due, one at a time in order of arrival, a small amount of short work may still overtake
    them: each start of a due request earns credit of `express_share` of its work, a request that costs at
    most `express_size` of the due one's work spends it.
    """

    __slots__ = (
        "_agreement",
        "_bounds_passed",
        "_credit",
        "_largest_wait_s",
        "_lengths",
        "_pace",
        "_predicted_sum",
        "_prompt_sum",
        "_settings",
        "_updated_s",
        "_waiting",
    )

    def __init__(self, settings: FcfsBoundSettings | None = None) -> None:
        self._settings = settings or FcfsBoundSettings()
        self._lengths, self._agreement, self._pace = LengthModel(), Agreement(), Pace()
        self._waiting: dict[str, tuple[float, int]] = {}
        self._predicted_sum, self._prompt_sum = 0.0, 0
        self._largest_wait_s, self._updated_s = 0.0, 0.0
        self._bounds_passed, self._credit = 0.0, 0.0

    def bound_s(self) -> float:
        """A request is due once it has waited this long."""
        return self._settings.share * self._largest_wait_s * self._agreement.trust

    def is_due(self, request: Request, now_s: float) -> bool:
        return now_s - request.waiting_since_s >= self.bound_s()

    def may_overtake(self, request: Request, due: Request) -> bool:
        """Whether a request may start before one that is due."""
        work = self._work_of(request)
        return work <= self._credit and work <= self._settings.express_size * self._work_of(due)

    def queued(self, request: Request, now_s: float) -> None:
        """A request begins to wait: new, or evicted."""
        if not self._waiting:
            # What rounding left of the sums goes with the last that waited.
            self._predicted_sum, self._prompt_sum = 0.0, 0
            self._pace.restart(now_s)
        self._count(request)
        self._update(now_s)
        request.ageing = self._settings.ageing * self._bounds_passed

    def rescored(self, request: Request) -> None:
        """A waiting request's prediction is new."""
        self._discount(request)
        self._count(request)

    def started(self, request: Request, due: Request | None) -> None:
        """A request stops waiting. `due` is the one whose turn starvation prevention said it was, if any."""
        self._discount(request)
        if due is not None:
            self.spend(request, due)

    def spend(self, request: Request, due: Request) -> None:
        """What a start does to the credit, and nothing else."""
        work = self._work_of(request)
        if due is request:
            self._credit = min(self._credit + self._settings.express_share * work, work)
        else:
            self._credit -= work

    def left(self, request: Request) -> None:
        """A waiting request was cancelled or expired."""
        self._discount(request)

    def produced(self, request: Request, count: int) -> None:
        """A running request got tokens, counted in its `output_tokens` already."""
        prompt_tokens = request.prompt_tokens if request.output_tokens == count else 0
        self._pace.worked(count + PROMPT_TOKEN_WORK * prompt_tokens)

    def finished(self, request: Request) -> None:
        """A running request got its last token."""
        self._pace.ended()
        if request.expected_tokens < math.inf:
            self._lengths.observe(request.expected_tokens, request.output_tokens)
            self._agreement.observe(request.expected_tokens, request.output_tokens)

    def counted(self) -> set[str]:
        """The ids of the requests in its sums."""
        return set(self._waiting)

    def look(self, now_s: float) -> None:
        """Before each plan."""
        if self._waiting and self._pace.look(now_s):
            # A burst that came before anything was known is known now.
            self._update(now_s)

    def _update(self, now_s: float) -> None:
        since_s = max(0.0, now_s - self._updated_s)
        if self._largest_wait_s > 0:
            self._bounds_passed += min(1.0, since_s / self._largest_wait_s)
        forgotten_s = self._largest_wait_s - self._settings.forgetting * since_s
        self._largest_wait_s = max(self._fcfs_wait_s(), forgotten_s)
        self._updated_s = max(now_s, self._updated_s)

    def _count(self, request: Request) -> None:
        predicted = self._predicted(request)
        self._waiting[request.id] = predicted, request.prompt_tokens
        self._predicted_sum += predicted
        self._prompt_sum += request.prompt_tokens

    def _discount(self, request: Request) -> None:
        predicted, prompt_tokens = self._waiting.pop(request.id)
        self._predicted_sum -= predicted
        self._prompt_sum -= prompt_tokens

    def _predicted(self, request: Request) -> float:
        if request.expected_tokens < math.inf:
            return request.expected_tokens
        return self._lengths.mean_predicted

    def _fcfs_wait_s(self) -> float:
        """How long FCFS would take to start all that waits: what one that arrives now would wait."""
        outputs = self._lengths.tokens(len(self._waiting), self._predicted_sum)
        return self._pace.seconds_per_work * (outputs + PROMPT_TOKEN_WORK * self._prompt_sum)

    def _work_of(self, request: Request) -> float:
        outputs = self._lengths.tokens(1, self._predicted(request))
        return outputs + PROMPT_TOKEN_WORK * request.prompt_tokens
