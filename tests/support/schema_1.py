"""A ranker version exactly as releases up to 0.1 wrote it (schema 1)."""

import json
from pathlib import Path

import onnx
from support.toy_ranker import PAD, toy_model, toy_tokenizer

from rankserve.records.ranker_version import MANIFEST, MODEL, MODEL_CARD, TOKENIZER, sha256_of


def publish_schema_1(repository: Path, name: str, version: int) -> Path:
    """Writes the version; returns its folder. A prompt's score is minus its number of tokens."""
    folder = repository / name / str(version)
    folder.mkdir(parents=True)
    tokenizer = toy_tokenizer()
    tokenizer.save(str(folder / TOKENIZER), pretty=False)
    onnx.save(toy_model(tokenizer, offset=0.0, positions=64), folder / MODEL)
    (folder / MODEL_CARD).write_text(f"# {name}, version {version}\n", encoding="utf-8")
    # Spelled out and not made from today's dataclasses: this is what lies on people's disks.
    manifest = {
        "schema": 1,
        "name": name,
        "version": version,
        "sha256": {file: sha256_of(folder / file) for file in (MODEL, TOKENIZER, MODEL_CARD)},
        "max_length": 64,
        "pad_token_id": tokenizer.token_to_id(PAD),
        "precision": "fp32",
        "base_model": "opt-mini",
        "neutral_score": -5.0,
        "calibration": {
            "scores": [-10.0, 0.0],
            "tokens_p50": [200.0, 100.0],
            "tokens_p90": [400.0, 150.0],
        },
        "truncation_side": "right",
        "metrics": {"kendall_tau": 0.5660521603701707, "validation_prompts": 2954.0},
        "training_data": ["MMLU-Pro, lengths of Llama-3.1-8B-Instruct (Apache-2.0)"],
        "licence": "Apache-2.0",
        "created_at": "2026-11-23T02:18:54+00:00",
        "versions": {"rankserve": "0.1.0", "torch": "2.13.0+cpu"},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return folder
