"""Training data: sources read, split by the hash of each prompt's id, and labelled."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from rankserve.records.prompts import PromptRecord, parse_prompt, read_prompts, split_of
from rankserve.trainer.config import FileSource, HubSource, Source, TrainConfig
from rankserve.trainer.synthetic import generate


class DataError(ValueError):
    """Training data that cannot be used. The message says which and what to do."""


@dataclass(slots=True, frozen=True)
class SourceData:
    """One source, split. No prompt of validation or test stands in training too."""

    name: str
    licence: str
    train: tuple[PromptRecord, ...]
    validation: tuple[PromptRecord, ...]
    test: tuple[PromptRecord, ...]


def load_sources(config: TrainConfig) -> list[SourceData]:
    """Reads and splits every source, in the order of the config.

    Raises:
        RecordError: a line of a file cannot be used; names file and line.
        DataError: a source is too small to train on, or a hub dataset cannot be read.
        OSError: a file cannot be opened.
    """
    return [_split(source, read_source(source), config.split) for source in config.sources]


def read_source(source: Source) -> Iterator[PromptRecord]:
    """The records of one source, in its order."""
    if isinstance(source, FileSource):
        return read_prompts(source.path, model=source.model, limit=source.limit)
    if isinstance(source, HubSource):
        return _read_hub(source)
    return generate(source.count, source.seed)


def length_label(
    record: PromptRecord, *, label: Literal["mean", "sample"] = "mean", bucket_tokens: int = 0
) -> float:
    """What ListMLE orders by: higher = shorter answer.

    Args:
        record: a prompt with its sampled lengths.
        label: "mean" of the samples, or the first "sample".
        bucket_tokens: lengths within a bucket of this many tokens get the same label; 0 for none.
    """
    length = record.mean_length if label == "mean" else float(record.output_lengths[0])
    return -(length // bucket_tokens) if bucket_tokens else -length


def _split(
    source: Source, records: Iterable[PromptRecord], fractions: tuple[float, float, float]
) -> SourceData:
    sides: dict[str, list[PromptRecord]] = {"train": [], "validation": [], "test": []}
    for record in records:
        sides[split_of(record.id, fractions)].append(record)
    trained_on = {record.prompt for record in sides["train"]}
    held_out = {
        side: tuple(record for record in sides[side] if record.prompt not in trained_on)
        for side in ("validation", "test")
    }
    if len(sides["train"]) < 2 or len(held_out["validation"]) < 2:
        raise DataError(
            f"source {source.name!r} gives {len(sides['train'])} training and "
            f"{len(held_out['validation'])} validation prompts, ranking needs at least 2 of each: "
            f"add data or raise the shares in `split`"
        )
    return SourceData(source.name, source.licence, tuple(sides["train"]), **held_out)


def _read_hub(source: HubSource) -> Iterator[PromptRecord]:
    try:
        import datasets
    except ModuleNotFoundError:
        raise DataError(
            f"source {source.name!r} is a Hugging Face dataset, which needs: pip install 'rankserve[hub]'"
        ) from None
    try:
        rows = datasets.load_dataset(source.dataset, source.subset, split=source.split)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot load the dataset {source.dataset!r} from the hub: {error}") from error
    missing = {source.prompt_column, source.length_column} - set(rows.column_names)
    if missing:
        raise DataError(
            f"dataset {source.dataset!r} has no column {', '.join(sorted(missing))}, only "
            f"{', '.join(rows.column_names)}: set prompt_column and length_column"
        )
    for number, row in enumerate(itertools.islice(rows, source.limit)):
        lengths = row[source.length_column]
        try:
            yield parse_prompt(
                {
                    "prompt": row[source.prompt_column],
                    "lengths": list(lengths) if isinstance(lengths, list | tuple) else [lengths],
                }
            )
        except ValueError as error:
            raise DataError(f"dataset {source.dataset!r}, row {number}: {error}") from None
