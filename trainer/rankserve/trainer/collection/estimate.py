"""What the rest of a collection will take: requests, tokens, time and money."""

from dataclasses import dataclass
from statistics import fmean, stdev

from rankserve.progress import duration
from rankserve.trainer.collection.collection import Collection

# Of English text in the tokenizers of current LLMs; replaced by what the endpoint counted as soon as it did.
_BYTES_PER_TOKEN = 4.0
# A chat template's own tokens are in what the endpoint counts, and not worth a guess before.
_NORMAL_95 = 1.96


@dataclass(slots=True, frozen=True)
class Prices:
    """Of a million tokens, in whatever currency; None where it is not known."""

    input_million: float | None = None
    output_million: float | None = None


@dataclass(slots=True, frozen=True)
class Estimate:
    """The rest of a collection.

    Attributes:
        requests: still to send.
        input_tokens: of their prompts.
        output_tokens: of their answers; the cap on all of them where nothing was collected yet.
        output_tokens_low: and ``_high``: 95 % interval of the expectation; None below two measured prompts.
        measured_prompts: with at least one answer: what the estimate is made from.
        duration_s: at the concurrency given and the latency measured; None where nothing was measured.
        cost: None without prices.
    """

    requests: int
    input_tokens: int
    output_tokens: int
    output_tokens_low: int | None
    output_tokens_high: int | None
    measured_prompts: int
    duration_s: float | None
    cost: float | None


def estimate(collection: Collection, *, concurrency: int, prices: Prices) -> Estimate:
    """Estimates from the prompts left and from all answers recorded.

    Samples of one prompt are alike, so the interval is that of means per prompt.
    """
    pending_bytes = [prompt.size_bytes for prompt, _ in collection.pending()]
    answers = [
        (prompt, found)
        for prompt in collection.prompts
        if (found := collection.recorded.answers(prompt, collection.samples))
    ]
    counted = [
        (prompt.size_bytes, answer.input_tokens)
        for prompt, found in answers
        for answer in found
        if answer.input_tokens is not None
    ]
    tokens_per_byte = (
        sum(tokens for _, tokens in counted) / sum(size for size, _ in counted)
        if counted
        else 1 / _BYTES_PER_TOKEN
    )
    lengths = [fmean(answer.output_tokens for answer in found) for _, found in answers]
    latencies_s = [answer.latency_s for _, found in answers for answer in found]
    requests = len(pending_bytes)
    mean_length = fmean(lengths) if lengths else float(collection.sampling.max_tokens)
    half_width = _NORMAL_95 * stdev(lengths) / len(lengths) ** 0.5 if len(lengths) > 1 else None
    input_tokens = round(sum(pending_bytes) * tokens_per_byte)
    output_tokens = round(requests * mean_length)
    return Estimate(
        requests=requests,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        output_tokens_low=None
        if half_width is None
        else round(requests * max(1.0, mean_length - half_width)),
        output_tokens_high=None if half_width is None else round(requests * (mean_length + half_width)),
        measured_prompts=len(lengths),
        duration_s=requests * fmean(latencies_s) / concurrency if latencies_s else None,
        cost=_cost(input_tokens, output_tokens, prices),
    )


def _cost(input_tokens: int, output_tokens: int, prices: Prices) -> float | None:
    if prices.input_million is None and prices.output_million is None:
        return None
    return (
        input_tokens * (prices.input_million or 0.0) + output_tokens * (prices.output_million or 0.0)
    ) / 1e6


def render(figures: Estimate) -> str:
    """The estimate for people, one line each."""
    if not figures.measured_prompts:
        basis = "at most: every answer at the cap, since nothing is collected yet; --pilot 50 measures"
    elif figures.output_tokens_low is None:
        basis = "from one prompt only"
    else:
        low, high = figures.output_tokens_low, figures.output_tokens_high
        basis = f"95 %: {low:,} to {high:,}, from {figures.measured_prompts:,} prompts"
    lines = [
        f"requests to send  {figures.requests:,}",
        f"prompt tokens     {figures.input_tokens:,}",
        f"output tokens     {figures.output_tokens:,} ({basis})",
    ]
    if figures.duration_s is not None:
        lines.append(f"duration          {duration(figures.duration_s)} at the latency measured so far")
    if figures.cost is not None:
        lines.append(f"cost              {figures.cost:,.2f}")
    return "\n".join(lines)
