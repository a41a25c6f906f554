"""What came of a simulated run: result records as columns, and the run's header."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from rankserve.cli.simulation.requests import SeededRequests
from rankserve.client.evaluation.columns import ColumnarRun, Integers, Numbers, ResultColumns
from rankserve.client.load.machine import describe_machine, package_versions
from rankserve.records.result_columns import write_run_columns
from rankserve.records.results import PARQUET_SUFFIX, ResultRecord, RunHeader, write_run
from rankserve.server.engines.simulated.profile import Profile
from rankserve.server.simulation.outcome import Outcome
from rankserve.server.simulation.setup import SimulationSettings

_DEPTH_SAMPLES = 1000
_RECORDS_AT_A_TIME = 10_000


@dataclass(slots=True, frozen=True, eq=False)
class SimulatedRun:
    """One policy on one seed's requests.

    Attributes:
        seed: of the requests.
        header: as it stands in the result file.
        columns: field of `ResultRecord` -> values, in order of arrival.
        other_lengths_mean: [requests], see `ResultColumns`.
        wall_s: how long the simulation took, the times of all replicas added up.
    """

    seed: int
    header: RunHeader
    columns: Mapping[str, Any]
    other_lengths_mean: Numbers
    wall_s: float

    def as_columns(self) -> ColumnarRun:
        """For evaluation."""
        names = {field.name for field in fields(ResultColumns)}
        values: dict[str, Any] = {name: self.columns[name] for name in names & self.columns.keys()}
        for name, default in (("score", np.nan), ("server_queued_s", 0.0)):
            values.setdefault(name, np.broadcast_to(np.float64(default), len(self.columns["id"])))
        return ColumnarRun(self.header, ResultColumns(other_lengths_mean=self.other_lengths_mean, **values))

    def write(self, path: Path) -> None:
        """Writes the result records: Parquet if the name ends in .parquet, else JSONL. Raises OSError."""
        if path.suffix == PARQUET_SUFFIX:
            write_run_columns(path, self.header, self.columns)
        else:
            write_run(path, self.header, self._records())

    def _records(self) -> Iterator[ResultRecord]:
        rows = len(self.columns["id"])
        for start in range(0, rows, _RECORDS_AT_A_TIME):
            part = slice(start, start + _RECORDS_AT_A_TIME)
            lists = {name: _listed(values[part]) for name, values in self.columns.items()}
            for name in ("score", "first_token_s"):
                if name in lists:
                    lists[name] = [None if value != value else value for value in lists[name]]
            for row in zip(*lists.values(), strict=True):
                yield ResultRecord(**dict(zip(lists, row, strict=True)))


def make_run(
    policy: str,
    requests: SeededRequests,
    engines: Sequence[Outcome],
    profile: Profile,
    settings: SimulationSettings,
    *,
    workload_name: str,
    further_settings: Mapping[str, Any],
    started_at: datetime,
    wall_s: float,
) -> SimulatedRun:
    """A run from the outcomes of its engines, to which its requests were dealt in turn.

    Args:
        policy: its name.
        requests: all of them.
        engines: one outcome an engine, in the order of dealing.
        profile: of each engine.
        settings: of each scheduler.
        workload_name: for the record.
        further_settings: for the record, beside those of the scheduler.
        started_at: when the simulation began.
        wall_s: how long it took.
    """
    replicas, fits, sent_s = len(engines), requests.fits, requests.arrival_s

    def all_requests(name: str, refused: Any) -> Any:
        """What the engines say of their requests, and what holds of those that none has seen."""
        values = np.array(np.broadcast_to(refused, len(requests)))
        kept = np.flatnonzero(fits)
        for place, engine in enumerate(engines):
            values[kept[place::replicas]] = getattr(engine, name)
        return values

    scheduled_s, first_token_s = (all_requests(name, sent_s) for name in ("scheduled_s", "first_token_s"))
    end_s = all_requests("end_s", sent_s)
    columns = {
        **requests.results,
        "end_s": end_s,
        "first_token_s": np.where(fits, first_token_s, np.nan),
        "server_scheduled_s": scheduled_s - sent_s,
        "server_first_token_s": first_token_s - sent_s,
        "server_end_s": end_s - sent_s,
        "max_token_gap_s": all_requests("max_token_gap_s", np.float64(0)),
        "preemptions": all_requests("preemptions", np.int64(0)),
        "promoted": all_requests("promoted", np.False_),
    }
    header = RunHeader(
        policy=policy,
        engine=f"simulated/{profile.name}",
        ranker_version="" if requests.scores is None else requests.scores.ranker_version,
        workload=workload_name,
        arrivals=requests.arrivals,
        seed=requests.seed,
        max_sequences=profile.max_sequences,
        max_batched_tokens=profile.max_batched_tokens,
        kv_blocks=profile.kv_blocks,
        replicas=replicas,
        settings={**_described(settings), **further_settings},
        engine_usage=_usage(engines, profile),
        queue_depth=queue_depth(sent_s[fits], scheduled_s[fits]),
        started_at=started_at.astimezone(UTC).isoformat(timespec="seconds"),
        versions=package_versions(),
        machine=describe_machine(),
    )
    return SimulatedRun(requests.seed, header, columns, requests.other_lengths_mean, wall_s)


def queue_depth(arrival_s: Numbers, scheduled_s: Numbers) -> tuple[tuple[float, int], ...]:
    """(s, requests waiting for their first start) at even distances, and when most of them wait.

    Args:
        arrival_s: [requests], in order.
        scheduled_s: [requests], first starts.
    """
    starts_s = np.sort(scheduled_s)

    def waiting(moments_s: Numbers) -> Integers:
        arrived = np.searchsorted(arrival_s, moments_s, side="right")
        return arrived - np.searchsorted(starts_s, moments_s, side="left")

    end_s = float(starts_s[-1])
    middles_s = (np.arange(_DEPTH_SAMPLES) + 0.5) * (end_s / _DEPTH_SAMPLES)
    most_s = arrival_s[np.argmax(waiting(arrival_s))]
    moments_s: Numbers = np.sort(np.append(middles_s, most_s))
    depths = waiting(moments_s)
    return tuple(zip(np.round(moments_s, 4).tolist(), depths.tolist(), strict=True))


def _described(settings: SimulationSettings) -> dict[str, Any]:
    """What differs from the defaults."""

    def flat(value: SimulationSettings) -> dict[str, Any]:
        nested = asdict(value)
        fair_share = nested.pop("fair_share")["enabled"]
        return {**nested.pop("starvation"), **nested, "fair_share": fair_share}

    defaults = flat(SimulationSettings())
    return {name: value for name, value in flat(settings).items() if value != defaults[name]}


def _usage(engines: Sequence[Outcome], profile: Profile) -> dict[str, float]:
    totals = [engine.totals for engine in engines]
    busy_s = sum(total.busy_s for total in totals)
    block_seconds = sum(total.kv_blocks_mean * total.busy_s for total in totals)
    return {
        "steps": sum(total.steps for total in totals),
        "busy_s": busy_s,
        "kv_use_mean": block_seconds / busy_s / profile.kv_blocks if busy_s else 0.0,
        "kv_use_max": max(total.kv_blocks_max for total in totals) / profile.kv_blocks,
        "promotions": sum(total.promotions for total in totals),
    }


def _listed(values: Any) -> list[Any]:
    return values.tolist() if isinstance(values, np.ndarray) else list(values)
