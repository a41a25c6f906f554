"""The prompts of each kind of source, one after the other."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rankserve.records.prompts import PromptRecord, parse_model, parse_prompt, read_prompts
from rankserve.trainer.config import FileSource, HubSource, Source, TableSource
from rankserve.trainer.data.tables import TableError, read_rows, table_columns
from rankserve.trainer.hub_bars import disable_hub_bars
from rankserve.trainer.synthetic import generate

# Of those that a table may have, what we read.
_COLUMNS = ("id", "prompt", "output_tokens", "lengths", "censored", "model")


class DataError(ValueError):
    """Training data that cannot be used. The message says which and what to do."""


def source_files(source: Source) -> list[Path]:
    """The files that a source reads, sorted; none of a hub dataset or generated prompts.

    Raises:
        DataError: there are none where there should be.
    """
    if isinstance(source, FileSource):
        files = [source.path] if source.path.is_file() else []
    elif isinstance(source, TableSource):
        files = sorted(Path(source.path.anchor).glob(str(source.path.relative_to(source.path.anchor))))
    else:
        return []
    if not files:
        raise DataError(
            f"source {source.name!r}: there is no file {source.path}; put the data there, or set `path` "
            f"(of a copy, if the config is a recipe that ships with RankServe)"
        )
    return files


def read_source(source: Source) -> Iterator[PromptRecord]:
    """The records of one source in its order, all of them whatever its ``limit``.

    Raises:
        RecordError: a line of a file cannot be used; names file and line.
        DataError: a file is not there, a row of a table cannot be used, or a hub dataset cannot be read.
        OSError: a file cannot be opened.
    """
    if isinstance(source, FileSource):
        [path] = source_files(source)
        return read_prompts(path, model=source.model, length_cap=source.length_cap)
    if isinstance(source, TableSource):
        return _read_tables(source)
    if isinstance(source, HubSource):
        return _read_hub(source)
    return generate(source.count, source.seed)


def _read_tables(source: TableSource) -> Iterator[PromptRecord]:
    # Place and name of the first.
    stated: tuple[str, str] | None = None
    for path in source_files(source):
        try:
            columns = table_columns(path)
            if "prompt" not in columns or not {"output_tokens", "lengths"} & set(columns):
                raise DataError(
                    f"{path} needs a column prompt and a column output_tokens or lengths, and has only "
                    f"{', '.join(columns)}: rename them"
                )
            for number, row in enumerate(
                read_rows(path, [name for name in _COLUMNS if name in columns]), start=1
            ):
                present = {name: value for name, value in row.items() if value is not None}
                place = f"{path}, row {number}"
                record = _parsed(present, source, place)
                if name := parse_model(present):
                    stated = stated or (place, name)
                    if name != stated[1]:
                        raise DataError(
                            f"{place}: the lengths are of {name!r:.60}, and those of {stated[0]} of "
                            f"{stated[1]!r:.60}, which are not comparable: make each LLM's a source"
                        )
                yield record
        except TableError as error:
            raise DataError(str(error)) from None


def _read_hub(source: HubSource) -> Iterator[PromptRecord]:
    try:
        import datasets
    except ModuleNotFoundError:
        raise DataError(
            f"source {source.name!r} is a Hugging Face dataset, which needs: pip install 'rankserve[hub]'"
        ) from None
    disable_hub_bars()
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
        yield _parsed(
            {
                "prompt": row[source.prompt_column],
                "lengths": list(lengths) if isinstance(lengths, list | tuple) else [lengths],
            },
            source,
            f"dataset {source.dataset!r}, row {number}",
        )


def _parsed(record: dict[str, Any], source: HubSource | TableSource, place: str) -> PromptRecord:
    try:
        return parse_prompt(record, length_cap=source.length_cap)
    except ValueError as error:
        raise DataError(f"{place}: {error}") from None
