"""Training data: sources read, split by the hash of each prompt's id, and labelled."""

import hashlib
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
    """One source, split. No prompt held out by any source is trained on by any.

    ``validation`` and ``test`` of an auxiliary source are empty.
    """

    name: str
    licence: str
    train: tuple[PromptRecord, ...]
    validation: tuple[PromptRecord, ...]
    test: tuple[PromptRecord, ...]


def load_sources(config: TrainConfig) -> list[SourceData]:
    """Reads and splits every source, in the order of the config.

    Raises:
        RecordError: a line of a file cannot be used; names file and line.
        DataError: a file is not there, a source is too small to train on, or a hub dataset cannot be read.
        OSError: a file cannot be opened.
    """
    # Before any is read or generated, which can take minutes.
    for source in config.sources:
        if isinstance(source, FileSource) and not source.path.is_file():
            raise DataError(
                f"source {source.name!r}: there is no file {source.path}; put the data there, or set `path` "
                f"(of a copy, if the config is a recipe that ships with RankServe)"
            )
    splits = [_split(read_source(source), config.split) for source in config.sources]
    held_out = {
        record.prompt
        for source, split in zip(config.sources, splits, strict=True)
        if not source.auxiliary
        for record in (*split["validation"], *split["test"])
    }
    return [
        _source_data(source, split, held_out) for source, split in zip(config.sources, splits, strict=True)
    ]


def read_source(source: Source) -> list[PromptRecord]:
    """The records of one source, in its order; ``limit`` of them."""
    if isinstance(source, FileSource):
        records = list(read_prompts(source.path, model=source.model, length_cap=source.length_cap))
    elif isinstance(source, HubSource):
        records = list(_read_hub(source))
    else:
        records = list(generate(source.count, source.seed))
    if source.limit is None or len(records) <= source.limit:
        return records
    # By another hash than the split's, which a share of its values would skew.
    digests = [hashlib.blake2b(record.id.encode(), person=b"limit").digest() for record in records]
    chosen = sorted(sorted(range(len(records)), key=digests.__getitem__)[: source.limit])
    return [records[i] for i in chosen]


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
    records: Iterable[PromptRecord], fractions: tuple[float, float, float]
) -> dict[str, list[PromptRecord]]:
    sides: dict[str, list[PromptRecord]] = {"train": [], "validation": [], "test": []}
    for record in records:
        sides[split_of(record.id, fractions)].append(record)
    return sides


def _source_data(source: Source, split: dict[str, list[PromptRecord]], held_out: set[str]) -> SourceData:
    train = tuple(record for record in split["train"] if record.prompt not in held_out)
    validation = () if source.auxiliary else tuple(split["validation"])
    test = () if source.auxiliary else tuple(split["test"])
    if len(train) < 2 or (len(validation) < 2 and not source.auxiliary):
        raise DataError(
            f"source {source.name!r} gives {len(train)} training and {len(validation)} validation prompts, "
            f"ranking needs at least 2 of each: add data or change the shares in `split`"
        )
    return SourceData(source.name, source.licence, train, validation, test)


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
    for number, row in enumerate(rows):
        lengths = row[source.length_column]
        try:
            yield parse_prompt(
                {
                    "prompt": row[source.prompt_column],
                    "lengths": list(lengths) if isinstance(lengths, list | tuple) else [lengths],
                },
                length_cap=source.length_cap,
            )
        except ValueError as error:
            raise DataError(f"dataset {source.dataset!r}, row {number}: {error}") from None
