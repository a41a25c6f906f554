"""Training data: sources read once into files of our own, split, and what is held out kept out of training.

Memory holds some 20 bytes a prompt, and the held-out records; texts stay on disk.
"""

import hashlib
import json
import shutil
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankserve.progress import Stage, stage
from rankserve.records.prompts import SPLITS, PromptRecord, normalised, split_of
from rankserve.trainer.config import Source, TableSource, TrainConfig
from rankserve.trainer.data.prompt_store import StoredPrompts, write_prompts
from rankserve.trainer.data.sources import DataError, read_source, source_files

__all__ = ["DataError", "SourceData", "data_digest", "load_sources", "normalised", "open_sources"]

_TRAIN, _VALIDATION, _TEST = range(len(SPLITS))
_SUMMARY = "sources.json"


@dataclass(slots=True, frozen=True)
class SourceData:
    """One source, split. No prompt held out by any source is trained on by any.

    Validation selects the checkpoint, so ``test`` lacks what the validation split of any source holds.

    An auxiliary source holds nothing out: all its prompts that no other source holds out are in ``train``.
    """

    name: str
    licence: str
    auxiliary: bool
    train: StoredPrompts
    validation: tuple[PromptRecord, ...]
    test: tuple[PromptRecord, ...]


def load_sources(config: TrainConfig, folder: Path) -> list[SourceData]:
    """Reads every source into ``folder`` and splits it; in the order of the config.

    What a whole earlier call left there is used as it is, if neither the config's data nor its files changed.

    Raises:
        RecordError: a line of a file cannot be used; names file and line.
        DataError: a file is not there, a row cannot be used, a source is too small to train on, or a hub
            dataset cannot be read.
        OSError: a file cannot be opened or written.
    """
    origin = _origin(config)
    if _summary(folder).get("origin") != origin:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        digest = _read(config, folder)
        temporary = folder / f"{_SUMMARY}.tmp"
        temporary.write_text(json.dumps({"origin": origin, "sha256": digest}), encoding="utf-8")
        temporary.replace(folder / _SUMMARY)
    return open_sources(config, folder)


def open_sources(config: TrainConfig, folder: Path) -> list[SourceData]:
    """What ``load_sources`` left in ``folder``.

    Raises:
        DataError: a source is too small to train on.
    """
    return [_open(source, folder, number) for number, source in enumerate(config.sources)]


def data_digest(folder: Path) -> str:
    """The sha256 of all records that ``load_sources`` read into ``folder``."""
    return str(_summary(folder)["sha256"])


@dataclass(slots=True, frozen=True)
class _Index:
    """What stays in memory of a source's records.

    Attributes:
        splits: uint8; number of the split in ``SPLITS``.
        texts: uint64; hash of the normalised prompt.
        chosen: bool; whether the source's ``limit`` lets it in.
    """

    splits: NDArray[np.uint8]
    texts: NDArray[np.uint64]
    chosen: NDArray[np.bool_]


class _Indexer:
    """Passes records on and takes down what an index needs."""

    def __init__(self, source: Source, fractions: tuple[float, float, float], reading: Stage) -> None:
        self._source = source
        self._fractions = fractions
        self._reading = reading
        self._splits, self._texts = array("B"), array("Q")
        # By another hash than the split's, which a share of its values would skew.
        self._limit_hashes = array("Q")
        self._id_hashes = array("Q")
        self._sha256 = hashlib.sha256()

    def watch(self, records: Iterator[PromptRecord]) -> Iterator[PromptRecord]:
        for record in records:
            self._splits.append(SPLITS.index(split_of(record.id, self._fractions)))
            self._texts.append(_hash(normalised(record.prompt)))
            if self._source.limit is not None:
                self._limit_hashes.append(_hash(record.id, person=b"limit"))
            if isinstance(self._source, TableSource):
                self._id_hashes.append(_hash(record.id))
            self._sha256.update(
                json.dumps([record.id, record.prompt, record.output_lengths, record.censored]).encode()
            )
            self._reading.advance()
            yield record

    def digest(self) -> bytes:
        return self._sha256.digest()

    def index(self) -> _Index:
        texts = np.frombuffer(self._texts, dtype=np.uint64)
        self._check_ids(texts)
        chosen = np.ones(len(texts), dtype=np.bool_)
        if self._source.limit is not None:
            order = np.argsort(np.frombuffer(self._limit_hashes, dtype=np.uint64), kind="stable")
            chosen[order[self._source.limit :]] = False
        return _Index(np.frombuffer(self._splits, dtype=np.uint8), texts, chosen)

    def _check_ids(self, texts: NDArray[np.uint64]) -> None:
        """JSONL files are checked as they are read, and hub datasets have no ids."""
        ids = np.frombuffer(self._id_hashes, dtype=np.uint64)
        order = np.argsort(ids, kind="stable")
        same = (
            (ids[order[1:]] == ids[order[:-1]]) & (texts[order[1:]] != texts[order[:-1]]) if len(ids) else []
        )
        if np.any(same):
            first = int(np.argmax(same))
            rows = sorted((int(order[first]) + 1, int(order[first + 1]) + 1))
            raise DataError(
                f"source {self._source.name!r}: rows {rows[0]} and {rows[1]} have one id and different "
                f"prompts: give each prompt its own id, or leave the column out"
            )


def _read(config: TrainConfig, folder: Path) -> str:
    """Reads all sources, and writes which rows of each are trained on and held out."""
    digest = hashlib.sha256()
    indices = []
    for number, source in enumerate(config.sources):
        with stage(f"reading {source.name}", unit="prompts") as reading:
            indexer = _Indexer(source, config.split, reading)
            write_prompts(_prompts_file(folder, number), indexer.watch(read_source(source)))
        indices.append(indexer.index())
        digest.update(indexer.digest())
    validation, test = (_texts_of(split, config.sources, indices) for split in (_VALIDATION, _TEST))
    held_out = np.union1d(validation, test)
    for number, (source, index) in enumerate(zip(config.sources, indices, strict=True)):
        trainable = index.chosen & ~np.isin(index.texts, held_out)
        reported = index.chosen & (not source.auxiliary)
        np.savez(
            _rows_file(folder, number),
            train=np.flatnonzero(trainable & ((index.splits == _TRAIN) | source.auxiliary)),
            validation=np.flatnonzero(reported & (index.splits == _VALIDATION)),
            test=np.flatnonzero(reported & (index.splits == _TEST) & ~np.isin(index.texts, validation)),
        )
    return digest.hexdigest()


def _texts_of(split: int, sources: Sequence[Source], indices: Sequence[_Index]) -> NDArray[np.uint64]:
    """Hashes of the normalised prompts that a held-out split of any source holds."""
    hashes = [
        index.texts[index.chosen & (index.splits == split)]
        for source, index in zip(sources, indices, strict=True)
        if not source.auxiliary
    ]
    return np.unique(np.concatenate(hashes))


def _open(source: Source, folder: Path, number: int) -> SourceData:
    with np.load(_rows_file(folder, number)) as rows:
        train, validation, test = (
            StoredPrompts(_prompts_file(folder, number), rows[split]) for split in SPLITS
        )
    if len(train) < 2 or (len(validation) < 2 and not source.auxiliary):
        files = "".join(f", {path}," for path in source_files(source))
        raise DataError(
            f"source {source.name!r}{files} gives {len(train)} training and {len(validation)} validation "
            f"prompts, ranking needs at least 2 of each: add data or change the shares in `split`"
        )
    return SourceData(source.name, source.licence, source.auxiliary, train, tuple(validation), tuple(test))


def _origin(config: TrainConfig) -> list[Any]:
    """What the data follows from. Files are checked here, before any is read, which can take minutes."""
    files = [path for source in config.sources for path in source_files(source)]
    stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    settings = [source.model_dump(mode="json") for source in config.sources]
    origin: list[Any] = json.loads(json.dumps([settings, config.split, stats]))
    return origin


def _summary(folder: Path) -> dict[str, Any]:
    try:
        summary: dict[str, Any] = json.loads((folder / _SUMMARY).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return summary


def _prompts_file(folder: Path, number: int) -> Path:
    return folder / f"prompts-{number}.arrow"


def _rows_file(folder: Path, number: int) -> Path:
    return folder / f"rows-{number}.npz"


def _hash(text: str, person: bytes = b"") -> int:
    # The first bytes of the longest digest: `limit` has always sampled by them.
    return int.from_bytes(hashlib.blake2b(text.encode(), person=person).digest()[:8])
