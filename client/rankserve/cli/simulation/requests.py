"""A workload as one seed draws it: in order of arrival, scored, and without what the LLM would refuse."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from rankserve.cli.simulation.scores import Scores
from rankserve.cli.simulation.workload import SimulationWorkload
from rankserve.client.evaluation.columns import FINISHED, Integers, Numbers
from rankserve.client.load import DrawnArrivals, Recorded
from rankserve.server.engines.simulated.profile import Profile
from rankserve.server.simulation.columns import RequestColumns, columns

# What a server answers to a request that is longer than the model allows.
REFUSED = "invalid_argument"


@dataclass(frozen=True, eq=False)
class SeededRequests:
    """Requests in order of arrival.

    Attributes:
        workload: where they come from.
        seed: of the arrivals and of degraded scores.
        arrivals: when they arrive, as it describes itself.
        order: [requests], rows of the workload in order of arrival.
        arrival_s: [requests], in order.
        fits: [requests], whether the model takes them; the others are refused.
        columns: those that fit, as the simulation reads them.
        scores: [requests]; None without any.
    """

    workload: SimulationWorkload
    seed: int
    arrivals: dict[str, Any]
    order: Integers
    arrival_s: Numbers
    fits: np.ndarray[Any, np.dtype[np.bool_]]
    columns: RequestColumns
    scores: Scores | None

    def __len__(self) -> int:
        return len(self.order)

    @cached_property
    def results(self) -> dict[str, Any]:
        """Columns of the result records that are the same under every policy."""
        workload, order, fits = self.workload, self.order, self.fits
        output_tokens = np.zeros(len(self), np.int64)
        output_tokens[fits] = self.columns.true_output_tokens
        shared: dict[str, Any] = {
            "id": workload.id[order],
            "outcome": np.where(fits, FINISHED, REFUSED),
            "sent_s": self.arrival_s,
            "input_tokens": np.where(fits, workload.input_tokens[order], 0),
            "output_tokens": output_tokens,
            "prompt_chars": workload.prompt_chars[order],
            "priority": workload.priority[order],
        }
        if any(workload.other_lengths):
            shared["other_lengths"] = [workload.other_lengths[row] for row in order.tolist()]
        if self.scores is not None:
            shared["score"] = np.where(fits, self.scores.score, np.nan)
        if not fits.all():
            # Objects, since texts of one width would all be as long as the longest.
            shared["error"] = np.where(fits, "", "prompt and answer exceed the model's max_model_len").astype(
                object
            )
        return shared

    @cached_property
    def other_lengths_mean(self) -> Numbers:
        """[requests], mean length of the other answers to the same prompt; NaN where there are none."""
        if "other_lengths" not in self.results:
            return np.broadcast_to(np.float64(np.nan), len(self))
        means = [sum(others) / len(others) if others else np.nan for others in self.results["other_lengths"]]
        return np.array(means)


def draw_requests(
    workload: SimulationWorkload,
    arrivals: DrawnArrivals | Recorded,
    scores: Scores | None,
    profile: Profile,
    seed: int,
) -> SeededRequests:
    """The requests of one seed.

    A request that states no `max_tokens` gets room for the longest recorded answer, as far as the model
    allows: its own length is what nobody but an oracle may know.

    Raises:
        ValueError: no request fits into the model.
    """
    if isinstance(arrivals, Recorded):
        if workload.arrival_s is None:
            raise ValueError("the workload records no arrival times: say --rate R, --on-off or --burst")
        unordered_s = workload.arrival_s / arrivals.speed
    else:
        unordered_s = np.array(arrivals.draw(len(workload)))
    order = np.argsort(unordered_s, kind="stable")
    arrival_s = unordered_s[order]
    prompts, answers = workload.input_tokens[order], workload.output_tokens[order]
    stated = workload.max_tokens[order]
    longest = np.minimum(answers.max(), profile.max_model_len - prompts)
    max_tokens = np.where(stated > 0, stated, longest)
    fits = prompts + np.where(stated > 0, stated, answers) <= profile.max_model_len
    if not fits.any():
        raise ValueError(
            f"no request fits into {profile.name}, whose max_model_len is {profile.max_model_len} tokens:"
            " choose another --profile, or more --kv-blocks"
        )
    ordered = None if scores is None else scores.take(order)
    kept = None if ordered is None else ordered.take(np.flatnonzero(fits))
    return SeededRequests(
        workload=workload,
        seed=seed,
        arrivals=arrivals.describe(),
        order=order,
        arrival_s=arrival_s,
        fits=fits,
        columns=columns(
            arrival_s[fits],
            prompts[fits],
            answers[fits],
            max_tokens=max_tokens[fits],
            priority=workload.priority[order][fits],
            tenant=workload.tenant[order][fits],
            score=None if kept is None else kept.score,
            expected_tokens=None if kept is None else kept.expected_tokens,
            expected_tokens_p90=None if kept is None else kept.expected_tokens_p90,
        ),
        scores=ordered,
    )
