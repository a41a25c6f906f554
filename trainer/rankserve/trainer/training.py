"""A training run: data -> lists -> OPT with ListMLE -> the checkpoint of the best tau -> figures.

rankserve train --config synthetic                                   # minutes on a CPU, no data needed
rankserve train --config opt-125m                                    # the paper's settings, for a GPU
rankserve train --config my.toml --output runs/mine --resume         # goes on where it was interrupted
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast, set_seed

from rankserve.trainer.backbones import load_backbone
from rankserve.trainer.batches import encode
from rankserve.trainer.config import TrainConfig
from rankserve.trainer.data import SourceData, length_label, load_sources
from rankserve.trainer.evaluation import assess, weighted_mean
from rankserve.trainer.lists import ListDataset, RankedPrompt
from rankserve.trainer.listwise_trainer import ListwiseTrainer, Progress, ValidationSource
from rankserve.trainer.metrics import lengths_matrix
from rankserve.trainer.model import RankerModel
from rankserve.trainer.run_folder import RunFolder
from rankserve.trainer.scoring import score_encoded


def train(config: TrainConfig, output: Path, *, resume: bool = False, progress: Progress) -> dict[str, Any]:
    """Trains a ranker and writes the run folder (see ``run_folder``).

    Sets the seeds of torch, numpy and random. Interrupted at any point, it can be called again with
    ``resume`` and ends with the weights that the uninterrupted run would have had on the same machine.

    Args:
        config: what to train on and how.
        output: the run folder.
        resume: continue from the folder's last checkpoint; a finished run is left as it is.
        progress: called with a line of text for each evaluation.

    Returns:
        What ``metrics.json`` holds: ``kendall_tau`` on validation, which selected the checkpoint, and the
        figures of ``evaluation.assess`` for ``validation`` and ``test``, averaged and by source.

    Raises:
        RecordError: a data line cannot be used.
        DataError: a source cannot be used.
        RankerModelError: the backbone cannot be used.
        RunError: the folder holds a run and ``resume`` is false, or another run.
        OSError: a file cannot be read or written.
    """
    sources = load_sources(config)
    folder = RunFolder(output)
    folder.check(config, sources, resume=resume)
    finished = folder.finished_metrics()
    if finished is not None:
        progress(f"{output} is complete already")
        return finished
    started = time.monotonic()
    set_seed(config.seed)
    backbone = load_backbone(config.model, [record.prompt for source in sources for record in source.train])
    tokenizer, model = backbone.tokenizer, backbone.model
    parameters = sum(parameter.numel() for parameter in model.parameters())
    progress(
        f"{sum(len(source.train) for source in sources)} training prompts from {len(sources)} sources, "
        f"{config.model.backbone} of {parameters / 1e6:.1f} M parameters"
    )
    folder.begin(config, sources)
    trainer = ListwiseTrainer(
        model,
        config,
        folder.checkpoints,
        ListDataset(
            [_ranked(source, tokenizer, config) for source in sources],
            config.optimisation.list_size,
            config.seed,
        ),
        [
            ValidationSource(
                encode(tokenizer, [record.prompt for record in source.validation], config.model.max_length),
                lengths_matrix(source.validation),
            )
            for source in sources
            if source.validation
        ],
        tokenizer.pad_token_id,
        progress,
    )
    checkpoint = folder.last_checkpoint() if resume else None
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    model.cpu().eval()
    metrics: dict[str, Any] = {
        "schema": 1,
        "name": config.name,
        "kendall_tau": trainer.state.best_metric,
        "validation": _figures(model, tokenizer, config, sources, "validation"),
        "test": _figures(model, tokenizer, config, sources, "test"),
        "training": {
            "prompts": sum(len(source.train) for source in sources),
            "parameters": parameters,
            "steps": trainer.state.global_step,
            "best_step": trainer.state.best_global_step,
            "epochs": trainer.state.epoch,
            "seconds": round(time.monotonic() - started, 1),
            "history": [
                {"step": entry["step"], "kendall_tau": entry["eval_kendall_tau"]}
                for entry in trainer.state.log_history
                if "eval_kendall_tau" in entry
            ],
        },
    }
    folder.finish(config, sources, model, tokenizer, metrics)
    return metrics


def _ranked(
    source: SourceData, tokenizer: PreTrainedTokenizerFast, config: TrainConfig
) -> list[RankedPrompt]:
    settings = config.optimisation
    rows = encode(tokenizer, [record.prompt for record in source.train], config.model.max_length)
    return [
        RankedPrompt(row, length_label(record, label=settings.label, bucket_tokens=settings.bucket_tokens))
        for row, record in zip(rows, source.train, strict=True)
    ]


def _figures(
    model: RankerModel,
    tokenizer: PreTrainedTokenizerFast,
    config: TrainConfig,
    sources: Sequence[SourceData],
    split: str,
) -> dict[str, Any] | None:
    """The figures of one split; None if it holds too little to order."""
    by_source: dict[str, dict[str, float]] = {}
    for source in sources:
        records = source.validation if split == "validation" else source.test
        if len(records) < 2:
            continue
        rows = encode(tokenizer, [record.prompt for record in records], config.model.max_length)
        scores = score_encoded(model, rows, tokenizer.pad_token_id)
        by_source[source.name] = assess(scores, records, source.train)
    return {**weighted_mean(by_source), "by_source": by_source} if by_source else None
