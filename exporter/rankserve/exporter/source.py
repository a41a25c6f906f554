"""What is exported: a run folder of `rankserve train`, or any Hugging Face sequence-classification folder."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerFast

from rankserve.exporter.errors import SourceError
from rankserve.records.json_values import is_finite

# Foreign tokenizers without a limit of their own state a huge number.
_DEFAULT_MAX_LENGTH = 512


@dataclass(slots=True, frozen=True)
class RankerSource:
    """A ranker to export.

    Attributes:
        model: folder of the checkpoint and its tokenizer.
        base_model: what was fine-tuned.
        max_length: longest prompt in tokens, special tokens included.
        pad_token_id: token id that pads a batch.
        truncation_side: which end of a longer prompt is cut, "left" or "right".
        validation: file of prompts with lengths that the checks use; None if the folder has none.
        trained_on: file of `prompt_id`s of its training prompts, one a line; None if it has none.
        calibration_source: which of the validation prompts' sources gives the calibration; "" takes all.
        training_data: names and licences.
        licence: of the ranker.
        test: figures on the run's test split as trained: tau, ceilings, baselines; empty if it states none.
    """

    model: Path
    base_model: str
    max_length: int
    pad_token_id: int
    truncation_side: str
    validation: Path | None = None
    trained_on: Path | None = None
    calibration_source: str = ""
    training_data: tuple[str, ...] = ()
    licence: str = ""
    test: dict[str, float] = field(default_factory=dict)


def read_source(folder: Path) -> RankerSource:
    """Recognises what a folder holds.

    Raises:
        SourceError: neither a finished run nor a checkpoint folder.
    """
    if (folder / "run.json").is_file():
        return _from_run(folder)
    if (folder / "model").is_dir() or (folder / "checkpoints").is_dir():
        raise SourceError(f"{folder} is an unfinished run: continue it with `rankserve train --resume`")
    if (folder / "config.json").is_file():
        return _from_checkpoint(folder)
    raise SourceError(
        f"{folder} is neither a run of `rankserve train` (run.json) nor a Hugging Face checkpoint "
        "(config.json)"
    )


def _from_run(folder: Path) -> RankerSource:
    path = folder / "run.json"
    run = _read_json(path)
    try:
        return RankerSource(
            model=folder / "model",
            base_model=str(run["base_model"]),
            max_length=int(run["max_length"]),
            pad_token_id=int(run["pad_token_id"]),
            truncation_side=_side(run["truncation_side"]),
            validation=_if_there(folder / "validation.jsonl.gz"),
            trained_on=_if_there(folder / "trained_on.txt"),
            calibration_source=str(run.get("calibration_source", "")),
            training_data=tuple(map(str, run["training_data"])),
            licence=str(run["licence"]),
            test=_test_figures(folder / "metrics.json"),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(f"{path} lacks or misstates {error}; train the run again") from None


def _from_checkpoint(folder: Path) -> RankerSource:
    try:
        config = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise SourceError(f"{folder}: unreadable config.json ({error})") from None
    tokenizer = load_fast_tokenizer(folder)
    pad_token_id = next(
        (
            token
            for token in (tokenizer.pad_token_id, config.pad_token_id, tokenizer.eos_token_id)
            if token is not None
        ),
        0,
    )
    longest = getattr(config, "max_position_embeddings", None) or _DEFAULT_MAX_LENGTH
    return RankerSource(
        model=folder,
        base_model=_origin(folder) or config.model_type,
        max_length=min(longest, tokenizer.model_max_length),
        pad_token_id=pad_token_id,
        truncation_side=_side(tokenizer.truncation_side),
    )


def load_fast_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The checkpoint's tokenizer, converted from a slow one where that is all there is.

    Raises:
        SourceError: there is none that can be saved as `tokenizer.json`.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=True)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, TypeError) as error:
        raise SourceError(f"{folder}: no usable tokenizer ({error})") from None
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise SourceError(
            f"{folder}: {type(tokenizer).__name__} has no fast version; save one as tokenizer.json beside it"
        )
    return tokenizer


def _origin(folder: Path) -> str:
    """The hub id that a checkpoint says it was made from; local paths mean nothing elsewhere."""
    name = str(_read_json(folder / "config.json").get("_name_or_path", ""))
    return "" if name.startswith((".", "/", "~")) else name


def _if_there(path: Path) -> Path | None:
    return path if path.is_file() else None


def _side(side: object) -> str:
    if side not in ("left", "right"):
        raise ValueError(f"truncation_side {side!r}")
    return str(side)


def _test_figures(path: Path) -> dict[str, float]:
    if not path.is_file():
        return {}
    test = _read_json(path).get("test") or {}
    return {name: float(value) for name, value in test.items() if is_finite(value)}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise SourceError(f"{path}: unreadable ({error})") from None
    if not isinstance(document, dict):
        raise SourceError(f"{path}: expected a JSON object")
    return document
