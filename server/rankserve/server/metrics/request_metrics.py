"""What is counted as requests come and go."""

from prometheus_client import CollectorRegistry, Counter, Histogram

from rankserve.server.errors import RequestError
from rankserve.server.events import Failed, Finished
from rankserve.server.metrics import buckets
from rankserve.server.requests import LiveRequest
from rankserve.server.rpc.errors import reason_of

PREFIX = "rankserve_"
# Series that exist from the start have a rate from their first event on.
_FINISH_REASONS = ("stop", "length")
_REFUSALS = (
    "INVALID_REQUEST",
    "REQUEST_ID_IN_USE",
    "QUEUE_FULL",
    "QUOTA_EXCEEDED",
    "DRAINING",
    "JOURNAL_FAILED",
    "ENGINE_FAILED",
)
_FAILURES = (
    "CANCELLED",
    "STREAM_LOST",
    "DEADLINE_PASSED",
    "DEADLINE_UNREACHABLE",
    "SHED",
    "DRAINING",
    "ANSWER_LOST",
    "INTERNAL_FAILURE",
)


class RequestMetrics:
    """Histograms and counters that need to see each request (an observer). Times are wall-clock seconds.

    Names are vLLM's where it has the same thing, with the prefix `rankserve_`. No label holds anything that
    a client chose.

    Args:
        registry: where they are read from.
        longest: the model's longest prompt plus answer in tokens.
    """

    def __init__(self, registry: CollectorRegistry, longest: int) -> None:
        def histogram(name: str, text: str, bounds: tuple[float, ...] | list[int]) -> Histogram:
            return Histogram(PREFIX + name, text, buckets=bounds, registry=registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(PREFIX + name, text, labels, registry=registry)

        latency, per_token = buckets.REQUEST_LATENCY_S, buckets.PER_TOKEN_S
        lengths = buckets.tokens(longest)
        self._queue_time = histogram(
            "request_queue_time_seconds", "Acceptance to first start of requests that started.", latency
        )
        self._promoted_wait = histogram(
            "promoted_request_queue_time_seconds",
            "Acceptance to first start of requests that starvation prevention brought forward.",
            latency,
        )
        self._first_token = histogram(
            "time_to_first_token_seconds",
            "Acceptance to first token of ended requests that had one.",
            buckets.FIRST_TOKEN_S,
        )
        self._latency = histogram(
            "e2e_request_latency_seconds", "Acceptance to last token of finished requests.", latency
        )
        self._per_output_token = histogram(
            "request_time_per_output_token_seconds",
            "First to last token of finished requests, divided by the tokens after the first.",
            per_token,
        )
        self._normalised_latency = histogram(
            "request_normalised_latency_seconds",
            "End-to-end latency of finished requests, divided by their output tokens.",
            per_token,
        )
        self._waiting_time = histogram(
            "request_max_waiting_time_seconds",
            "Longest time a finished request's client waited for a token, the first or any later one.",
            buckets.FIRST_TOKEN_S,
        )
        self._prompt_lengths = histogram(
            "request_prompt_tokens", "Prompt tokens of finished requests.", lengths
        )
        self._output_lengths = histogram(
            "request_generation_tokens", "Output tokens of finished requests.", lengths
        )
        self._score_time = histogram(
            "score_latency_seconds",
            "Time until a request had its score, neutral ones included.",
            buckets.SCORE_S,
        )
        self._prompt_tokens = counter(
            "prompt_tokens", "Prompt tokens of requests that started, once each however often they restarted."
        )
        self._success = counter("request_success", "Finished requests.", "finished_reason")
        self._failure = counter(
            "request_failure", "Accepted requests that did not finish, by ErrorInfo.reason.", "reason"
        )
        self._refused = counter(
            "requests_refused", "Requests refused at the door, by ErrorInfo.reason.", "reason"
        )
        for finish_reason in _FINISH_REASONS:
            self._success.labels(finish_reason)
        for reason in _REFUSALS:
            self._refused.labels(reason)
        for reason in _FAILURES:
            self._failure.labels(reason)

    def accepted(self, live: LiveRequest) -> None: ...

    def refused(self, error: RequestError) -> None:
        self._refused.labels(reason_of(error)).inc()

    def scored(self, live: LiveRequest, duration_s: float) -> None:
        self._score_time.observe(duration_s)

    def started(self, live: LiveRequest) -> None:
        request = live.request
        if request.preemptions or live.scheduled_s is None:
            return
        waited_s = live.scheduled_s - request.arrival_s
        self._queue_time.observe(waited_s)
        self._prompt_tokens.inc(request.prompt_tokens)
        if request.promotions:
            self._promoted_wait.observe(waited_s)

    def ended(self, live: LiveRequest) -> None:
        if live.first_token_s is not None:
            self._first_token.observe(live.first_token_s - live.request.arrival_s)
        outcome = live.outcome
        if isinstance(outcome, Finished):
            self._finished(outcome)
        elif isinstance(outcome, Failed):
            self._failure.labels(reason_of(outcome.error)).inc()

    def _finished(self, outcome: Finished) -> None:
        timing, output_tokens = outcome.timing, outcome.output_tokens
        self._success.labels(outcome.finish_reason).inc()
        self._prompt_lengths.observe(outcome.input_tokens)
        self._output_lengths.observe(output_tokens)
        self._latency.observe(timing.last_token_s)
        self._waiting_time.observe(max(timing.first_token_s, timing.max_token_gap_s))
        if output_tokens:
            self._normalised_latency.observe(timing.last_token_s / output_tokens)
        if output_tokens > 1:
            decode_s = timing.last_token_s - timing.first_token_s
            self._per_output_token.observe(decode_s / (output_tokens - 1))
