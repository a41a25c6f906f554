"""The results of a run as arrays: what all figures are computed from, whatever file or run they come from."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankserve.records.results import PARQUET_SUFFIX, ResultRecord, Run, RunHeader, read_run

FINISHED = "finished"

Numbers = NDArray[np.float64]
Integers = NDArray[np.int64]
Texts = NDArray[np.str_]


@dataclass(slots=True, frozen=True, eq=False)
class ResultColumns:
    """Results, each attribute an array of shape [requests], named as in `records.results.ResultRecord`.

    NaN stands for None in `first_token_s` and `score`, and for no other answers in `other_lengths_mean`.
    """

    id: Texts
    outcome: Texts
    sent_s: Numbers
    end_s: Numbers
    first_token_s: Numbers
    output_tokens: Integers
    other_lengths_mean: Numbers
    prompt_chars: Integers
    score: Numbers
    server_queued_s: Numbers
    server_first_token_s: Numbers
    server_end_s: Numbers
    max_token_gap_s: Numbers
    preemptions: Integers
    promoted: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.id)

    def take(self, which: NDArray[Any]) -> "ResultColumns":
        """These requests alone."""
        return ResultColumns(**{field.name: getattr(self, field.name)[which] for field in fields(self)})


@dataclass(slots=True, frozen=True, eq=False)
class ColumnarRun:
    """A run whose results are columns."""

    header: RunHeader
    results: ResultColumns

    def finished(self) -> "ColumnarRun":
        """With the requests alone that finished; only these have latencies."""
        done = self.results.outcome == FINISHED
        return self if done.all() else self.take(done)

    def take(self, which: NDArray[Any]) -> "ColumnarRun":
        """With these requests alone."""
        return ColumnarRun(self.header, self.results.take(which))


AnyRun = Run | ColumnarRun


def as_columns(run: AnyRun) -> ColumnarRun:
    """The run with its results as columns."""
    if isinstance(run, ColumnarRun):
        return run
    results = run.results

    def column(name: str, dtype: type) -> NDArray[Any]:
        return np.array([getattr(result, name) for result in results], dtype)

    columns = ResultColumns(
        other_lengths_mean=np.array([_mean_of_others(result) for result in results], np.float64),
        **{name: column(name, dtype) for name, dtype in _DTYPES.items()},
    )
    return ColumnarRun(run.header, columns)


def read_columns(path: Path) -> ColumnarRun:
    """Reads a result file of either format.

    Raises:
        RecordError: it is none, or damaged.
        OSError: the file cannot be opened.
        ModuleNotFoundError: Parquet, and pyarrow is not installed.
    """
    if path.suffix != PARQUET_SUFFIX:
        return as_columns(read_run(path))
    from rankserve.records.result_columns import read_run_columns

    header, table = read_run_columns(path)
    columns = {name: _from_arrow(table[name], dtype) for name, dtype in _DTYPES.items()}
    return ColumnarRun(
        header, ResultColumns(other_lengths_mean=_means(table["other_lengths"].combine_chunks()), **columns)
    )


_DTYPES: dict[str, type] = {
    "id": str,
    "outcome": str,
    "sent_s": float,
    "end_s": float,
    "first_token_s": float,
    "output_tokens": int,
    "prompt_chars": int,
    "score": float,
    "server_queued_s": float,
    "server_first_token_s": float,
    "server_end_s": float,
    "max_token_gap_s": float,
    "preemptions": int,
    "promoted": bool,
}


def _mean_of_others(result: ResultRecord) -> float:
    return sum(result.other_lengths) / len(result.other_lengths) if result.other_lengths else np.nan


def _from_arrow(column: Any, dtype: type) -> NDArray[Any]:
    array: NDArray[Any] = column.to_numpy().astype(dtype)
    return array


def _means(lists: Any) -> Numbers:
    """The mean of each list; NaN for an empty one."""
    lengths = np.diff(lists.offsets.to_numpy())
    owner = np.repeat(np.arange(len(lengths)), lengths)
    sums = np.bincount(owner, weights=lists.flatten().to_numpy(), minlength=len(lengths))
    means: Numbers = np.divide(sums, lengths, out=np.full(len(lengths), np.nan), where=lengths > 0)
    return means
