"""The folder that a training run writes.

::

    config.json           the configuration, with a digest of the data
    checkpoints/          what --resume continues from
    model/                config.json, model.safetensors, tokenizer.json, tokenizer_config.json
    validation.jsonl.gz   id, prompt, lengths, source: what the exporter gates and calibrates on
    trained_on.txt        hash of each training prompt, so that an evaluation can leave them out
    metrics.json          tau on validation and test with ceilings and baselines
    run.json              base model, max_length, ...; written last, so its presence says the run is complete
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from rankserve.records.jsonl import write_jsonl
from rankserve.records.prompts import prompt_id
from rankserve.trainer.config import TrainConfig
from rankserve.trainer.data import SourceData
from rankserve.trainer.model import RankerModel


class RunError(ValueError):
    """A run folder that cannot be used as asked. The message says what to do."""


class RunFolder:
    """Reads and writes one run folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.model = path / "model"
        self.checkpoints = path / "checkpoints"
        self._config = path / "config.json"
        self._trained_on = path / "trained_on.txt"
        self._metrics = path / "metrics.json"
        self._run = path / "run.json"

    def begin(self, config: TrainConfig, sources: Sequence[SourceData]) -> None:
        """Claims the folder for this run."""
        self.path.mkdir(parents=True, exist_ok=True)
        _write_json(self._config, _identity(config, sources))

    def check(self, config: TrainConfig, sources: Sequence[SourceData], *, resume: bool) -> None:
        """Checks that the folder is free, or holds this very run if it is to be resumed.

        Raises:
            RunError: it holds a run and ``resume`` is false, or another config's or data's run.
        """
        if not self._config.exists():
            return
        document = _identity(config, sources)
        if not resume:
            raise RunError(f"{self.path} holds a run: pass --resume to continue it, or another --output")
        before = json.loads(self._config.read_text(encoding="utf-8"))
        if before["config"] != document["config"]:
            changed = sorted(
                key
                for key in document["config"].keys() | before["config"].keys()
                if document["config"].get(key) != before["config"].get(key)
            )
            raise RunError(f"{self.path} was begun with other {', '.join(changed)}: use another --output")
        if before["data_sha256"] != document["data_sha256"]:
            raise RunError(f"the training data changed since {self.path} was begun: use another --output")

    @property
    def is_complete(self) -> bool:
        return self._run.exists()

    def settings(self) -> dict[str, Any]:
        """What ``run.json`` of a completed run holds."""
        settings: dict[str, Any] = json.loads(self._run.read_text(encoding="utf-8"))
        return settings

    def trained_on(self) -> frozenset[str]:
        """``prompt_id`` of every training prompt of a completed run."""
        return frozenset(self._trained_on.read_text(encoding="utf-8").split())

    def finished_metrics(self) -> dict[str, Any] | None:
        """The metrics of a completed run, else None."""
        if not self.is_complete:
            return None
        metrics: dict[str, Any] = json.loads(self._metrics.read_text(encoding="utf-8"))
        return metrics

    def last_checkpoint(self) -> Path | None:
        """The newest checkpoint that was written to its end."""
        complete = [path for path in self.checkpoints.glob("checkpoint-*") if _is_complete(path)]
        return max(complete, key=_step, default=None)

    def finish(
        self,
        config: TrainConfig,
        sources: Sequence[SourceData],
        model: RankerModel,
        tokenizer: PreTrainedTokenizerFast,
        metrics: dict[str, Any],
    ) -> None:
        """Writes the results of a run."""
        model.save_pretrained(self.model)
        # Truncation and padding are the caller's business, not the saved tokenizer's.
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
        tokenizer.save_pretrained(self.model)
        write_jsonl(
            self.path / "validation.jsonl.gz",
            (
                {
                    "id": record.id,
                    "prompt": record.prompt,
                    "lengths": list(record.output_lengths),
                    "source": source.name,
                }
                for source in sources
                for record in source.validation
            ),
        )
        hashes = {prompt_id(record.prompt) for source in sources for record in source.train}
        self._trained_on.write_text("".join(f"{digest}\n" for digest in sorted(hashes)), encoding="utf-8")
        _write_json(self._metrics, metrics)
        _write_json(
            self._run,
            {
                "base_model": config.model.backbone,
                "max_length": config.model.max_length,
                "pad_token_id": tokenizer.pad_token_id,
                "truncation_side": config.model.truncation_side,
                "training_data": [f"{source.name} ({source.licence})" for source in sources],
                "calibration_source": next(source.name for source in sources if source.validation),
                "licence": config.licence,
            },
        )


def _identity(config: TrainConfig, sources: Sequence[SourceData]) -> dict[str, Any]:
    digest = hashlib.sha256()
    for source in sources:
        for record in (*source.train, *source.validation, *source.test):
            digest.update(json.dumps([record.id, record.prompt, record.output_lengths]).encode())
    return {"config": config.model_dump(mode="json"), "data_sha256": digest.hexdigest()}


def _is_complete(checkpoint: Path) -> bool:
    # The Trainer writes its state last.
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("checkpoint-"))


def _write_json(path: Path, document: dict[str, Any]) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)
