"""The folder that a training run writes.

::

    config.json           the configuration, with a digest of the data and the precision that was chosen
    .lock                 held while a process trains
    data/                 prompts and tokens that training reads; removed in the end
    checkpoints/          what --resume continues from; removed in the end
    model/                config.json, model.safetensors, tokenizer.json, tokenizer_config.json
    validation.jsonl.gz   id, prompt, lengths, censored, source: what the exporter gates and calibrates on
    trained_on.txt        hashes of each prompt that the ranker saw, as it is and normalised, so that an
                          evaluation can leave them out
    metrics.json          tau on validation and test with ceilings and baselines
    run.json              base model, max_length, ...; written last, so its presence says the run is complete
"""

import fcntl
import json
import re
import shutil
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import numpy as np
from transformers import PreTrainedTokenizerFast

from rankserve.records.jsonl import write_jsonl
from rankserve.records.prompts import known_as
from rankserve.trainer.config import TrainConfig
from rankserve.trainer.data.loading import SourceData
from rankserve.trainer.model import RankerModel
from rankserve.trainer.training.checkpoints import Checkpoints
from rankserve.trainer.training.precision import Used

# Whatever else is in a folder called data, is not ours to delete.
_OUR_DATA = re.compile(
    r"(prompts|rows|tokens|teacher)-[0-9]+\.(arrow|npz|npy|tmp)"
    r"|sources\.json(\.tmp)?|pretrained\.(safetensors|tmp)"
)


class RunError(ValueError):
    """A run folder that cannot be used as asked. The message says what to do."""


class RunFolder:
    """Reads and writes one run folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.model = path / "model"
        self.checkpoints = Checkpoints(path / "checkpoints")
        self.data = path / "data"
        self._lock = path / ".lock"
        self._config = path / "config.json"
        self._validation = path / "validation.jsonl.gz"
        self._trained_on = path / "trained_on.txt"
        self._metrics = path / "metrics.json"
        self._run = path / "run.json"

    @classmethod
    def finished_at(cls, path: Path) -> Self | None:
        """The finished run that ``path`` is the folder of, or the ``model`` in it; None if there is none."""
        path = path.resolve()
        return next((run for run in (cls(path), cls(path.parent)) if run._is_of(path)), None)

    def tokens(self, source: int) -> Path:
        """Where the tokenised training prompts of the ``source``-th source are while the run goes on."""
        return self.data / f"tokens-{source}.arrow"

    def teacher_scores(self, source: int) -> Path:
        """Where what the teachers make of them is."""
        return self.data / f"teacher-{source}.npy"

    @property
    def pretrained(self) -> Path:
        """Where the body is after pretraining."""
        return self.data / "pretrained.safetensors"

    def begin(self, config: TrainConfig, data_sha256: str, precision: Used) -> None:
        """Claims the folder for this run, which multiplies in ``precision``."""
        claim = {
            "config": config.model_dump(mode="json"),
            "data_sha256": data_sha256,
            "precision": precision,
        }
        _write_json(self._config, claim)

    def begun_with(self) -> Used | None:
        """The precision of the run that holds the folder; None if there is none."""
        if not self._config.exists():
            return None
        precision: Used | None = self._claim().get("precision")
        return precision

    @contextmanager
    def unclaimed_left_as_it_was(self) -> Iterator[None]:
        """If what is done within fails before the folder is claimed, it leaves no data in it."""
        try:
            yield
        except BaseException:
            if not self._config.exists():
                shutil.rmtree(self.data, ignore_errors=True)
                self._lock.unlink(missing_ok=True)
                with suppress(OSError):
                    self.path.rmdir()
            raise

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keeps other processes from training in the folder meanwhile; one that dies lets go of it.

        Raises:
            RunError: another one trains in it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with self._lock.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunError(
                    f"another process trains in {self.path}: wait for it, or use another --output"
                ) from None
            yield

    def check(self, config: TrainConfig, *, resume: bool) -> None:
        """Checks that the folder is free, or holds a run of this config if it is to be resumed.

        Raises:
            RunError: it holds a run and ``resume`` is false, another config's run, or no run but
                something that one would replace.
        """
        if not self._config.exists():
            if foreign := self._in_the_way():
                raise RunError(
                    f"{self.path} is no run, and a run would replace what it has in {', '.join(foreign)}: "
                    f"use another --output"
                )
            return
        if not resume:
            raise RunError(f"{self.path} holds a run: pass --resume to continue it, or another --output")
        now, before = config.model_dump(mode="json"), self._claim()["config"]
        if before != now:
            changed = sorted(key for key in now.keys() | before.keys() if now.get(key) != before.get(key))
            raise RunError(f"{self.path} was begun with other {', '.join(changed)}: use another --output")

    def check_data(self, data_sha256: str) -> None:
        """Checks that a run which holds the folder was begun with this data.

        Raises:
            RunError: it was begun with other data.
        """
        if self._config.exists() and self._claim()["data_sha256"] != data_sha256:
            raise RunError(f"the training data changed since {self.path} was begun: use another --output")

    @property
    def is_complete(self) -> bool:
        return self._run.exists()

    def settings(self) -> dict[str, Any]:
        """What ``run.json`` of a completed run holds."""
        settings: dict[str, Any] = json.loads(self._run.read_text(encoding="utf-8"))
        return settings

    def trained_on(self) -> frozenset[str]:
        """``known_as`` of every training prompt of a completed run and of what it learned from."""
        return frozenset(self._trained_on.read_text(encoding="utf-8").split())

    def finished_metrics(self) -> dict[str, Any] | None:
        """The metrics of a completed run, else None."""
        if not self.is_complete:
            return None
        metrics: dict[str, Any] = json.loads(self._metrics.read_text(encoding="utf-8"))
        return metrics

    def finish(
        self,
        config: TrainConfig,
        sources: Sequence[SourceData],
        model: RankerModel,
        tokenizer: PreTrainedTokenizerFast,
        metrics: dict[str, Any],
        inherited: frozenset[str],
    ) -> None:
        """Writes the results of a run; ``inherited`` are prompts that other rankers saw for it."""
        model.save_pretrained(self.model)
        # Truncation and padding are the caller's business, not the saved tokenizer's.
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
        tokenizer.save_pretrained(self.model)
        write_jsonl(
            self._validation,
            (
                {
                    "id": record.id,
                    "prompt": record.prompt,
                    "lengths": list(record.output_lengths),
                    "censored": list(record.censored),
                    "source": source.name,
                }
                for source in sources
                for record in source.validation
            ),
        )
        self._write_trained_on(sources, inherited)
        shutil.rmtree(self.data)
        _write_json(self._metrics, metrics)
        _write_json(
            self._run,
            {
                "base_model": config.model.origin,
                "max_length": config.model.max_length,
                "pad_token_id": tokenizer.pad_token_id,
                "truncation_side": config.model.truncation_side,
                "training_data": [f"{source.name} ({source.licence})" for source in sources],
                "calibration_source": next(source.name for source in sources if source.validation),
                "licence": config.licence,
            },
        )
        # Weights of the optimiser too: several times the size of the model.
        shutil.rmtree(self.checkpoints.path, ignore_errors=True)

    def _is_of(self, path: Path) -> bool:
        return self.is_complete and path in (self.path, self.model)

    def _in_the_way(self) -> list[str]:
        """What a run that did not claim the folder would overwrite or delete, and is not a run's own."""
        results = (
            self.model,
            self.checkpoints.path,
            self._validation,
            self._trained_on,
            self._metrics,
            self._run,
        )
        foreign = [path.name for path in results if path.exists()]
        if self.data.exists() and not all(_OUR_DATA.fullmatch(path.name) for path in self.data.iterdir()):
            foreign.append(self.data.name)
        return foreign

    def _claim(self) -> dict[str, Any]:
        claim: dict[str, Any] = json.loads(self._config.read_text(encoding="utf-8"))
        if not {"config", "data_sha256"} <= claim.keys():
            raise RunError(f"{self._config} is that of a model, not of a run: use another --output")
        return claim

    def _write_trained_on(self, sources: Sequence[SourceData], inherited: frozenset[str]) -> None:
        # Ids are 64 bits in hexadecimal: as numbers, those of millions fit in memory.
        ids = array(
            "Q",
            (
                int(known, 16)
                for source in sources
                for text in source.train.prompts()
                for known in known_as(text)
            ),
        )
        ids.extend(int(prompt, 16) for prompt in inherited)
        with self._trained_on.open("w", encoding="utf-8") as file:
            file.writelines(f"{number:016x}\n" for number in np.unique(np.frombuffer(ids, dtype=np.uint64)))


def _write_json(path: Path, document: dict[str, Any]) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)
