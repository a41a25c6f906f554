"""A training run: data -> lists -> ranker -> the checkpoint of the best tau -> figures.

rankserve train --config synthetic                                   # minutes on a CPU, no data needed
rankserve train --config opt-125m                                    # the paper's settings, for a GPU
rankserve train --config my.toml --output runs/mine --resume         # goes on where it was interrupted
torchrun --nproc-per-node 2 $(which rankserve) train --config my.toml --output runs/mine
"""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast, set_seed

from rankserve.progress import Reporter, report_to, stage, tell
from rankserve.trainer.backbones import Backbone, load_backbone
from rankserve.trainer.batches import encode
from rankserve.trainer.config import TrainConfig
from rankserve.trainer.data.lists import ListDataset
from rankserve.trainer.data.loading import SourceData, data_digest, load_sources, open_sources
from rankserve.trainer.data.token_store import TokenisedPrompts, write_tokens
from rankserve.trainer.evaluation.assessment import assess, weighted_mean
from rankserve.trainer.evaluation.metrics import lengths_matrix
from rankserve.trainer.losses import Distillation, Loss, make_loss
from rankserve.trainer.model import RankerModel
from rankserve.trainer.scoring import score_encoded
from rankserve.trainer.training.distributed import Processes
from rankserve.trainer.training.lineage import inherited_prompts
from rankserve.trainer.training.list_scorer import ListScorer
from rankserve.trainer.training.listwise_trainer import ListwiseTrainer, ValidationSource
from rankserve.trainer.training.precision import Used, choose_precision
from rankserve.trainer.training.pretraining import load_body, pretrain, save_body
from rankserve.trainer.training.run_folder import RunFolder
from rankserve.trainer.training.teachers import write_teacher_scores

# A tokenizer, the linear baseline and the scale of a loss are fitted to a sample, where there is more.
_TOKENIZER_PROMPTS = 100_000
_BASELINE_PROMPTS = 20_000


def train(
    config: TrainConfig, output: Path, *, resume: bool = False, baselines: bool = True
) -> dict[str, Any]:
    """Trains a ranker and writes the run folder (see ``run_folder``).

    Sets the seeds of torch, numpy and random. Interrupted at any point, it can be called again with
    ``resume`` and ends with the weights that the uninterrupted run would have had on the same machine.

    Started by ``torchrun`` or ``accelerate launch``, the processes train together; they have to share the
    file system that ``output`` is on. The first one reports its progress.

    Args:
        config: what to train on and how.
        output: the run folder.
        resume: continue from the folder's last checkpoint; a finished run is left as it is.
        baselines: whether the figures hold those of the baselines, which can take minutes.

    Returns:
        What ``metrics.json`` holds: ``kendall_tau`` on validation, which selected the checkpoint, and the
        figures of ``evaluation.assess`` for ``validation`` and ``test``, averaged and by source.

    Raises:
        RecordError: a data line cannot be used.
        DataError: a source cannot be used, or a teacher or the backbone saw what is held out here.
        RankerModelError: the backbone cannot be used.
        ConfigError: the device does not know the precision asked for.
        RunError: the folder holds a run and ``resume`` is false, another run, or other files; or another
            process trains in it.
        PeerError: on other processes than the first, which failed.
        OSError: a file cannot be read or written.
    """
    started = time.monotonic()
    folder = RunFolder(output)
    with Processes.joined() as processes, ExitStack() as held:
        if not processes.is_first:
            held.enter_context(report_to(Reporter()))
        finished = processes.on_first(lambda: _finished(config, folder, resume=resume))
        if finished is not None:
            tell(f"{output} is complete already")
            return finished
        precision = processes.on_first(
            lambda: choose_precision(config.optimisation.precision, begun_with=folder.begun_with())
        )
        tell(str(precision))
        if precision.warning:
            tell(f"warning: {precision.warning}")
        processes.on_first(lambda: _prepare(config, folder, held))
        sources = open_sources(config, folder.data)
        set_seed(config.seed)
        backbone = load_backbone(config.model, _tokenizer_prompts(sources))
        heads = _heads(config, sources)
        scorer = ListScorer(backbone.model, extra_heads=max(heads))
        parameters = sum(parameter.numel() for parameter in backbone.model.parameters())
        tell(
            f"{sum(len(source.train) for source in sources):,} training prompts from {len(sources)} sources, "
            f"{config.model.backbone} of {parameters / 1e6:.1f} M parameters"
        )
        processes.on_first(lambda: _tokenise(config, folder, sources, backbone.tokenizer, precision.used))
        lists = [_lists_from(config, folder, number, source) for number, source in enumerate(sources)]
        if config.pretraining is not None:
            processes.on_first(lambda: _pretrain(config, folder, backbone, lists, precision.used))
            load_body(backbone.model, folder.pretrained)
            # What follows is then the same whether this process pretrained, another or an earlier one.
            set_seed(config.seed)
        trainer = ListwiseTrainer(
            scorer,
            config,
            folder.checkpoints,
            ListDataset(lists, config.optimisation.list_size, config.seed),
            heads,
            [
                ValidationSource(
                    encode(
                        backbone.tokenizer,
                        [record.prompt for record in source.validation],
                        config.model.max_length,
                    ),
                    lengths_matrix(source.validation),
                )
                for source in sources
                if source.validation
            ],
            backbone.tokenizer.pad_token_id,
            _loss(config, sources),
            precision=precision.used,
            processes=processes,
            resume_from=folder.checkpoints.last() if resume else None,
        )
        trainer.run()

        def figures() -> dict[str, Any]:
            model = backbone.model.eval()
            state = trainer.state
            metrics: dict[str, Any] = {
                "schema": 1,
                "name": config.name,
                "kendall_tau": state.best_metric,
                "validation": _figures(model, backbone.tokenizer, config, sources, "validation", baselines),
                "test": _figures(model, backbone.tokenizer, config, sources, "test", baselines),
                "training": {
                    "prompts": sum(len(source.train) for source in sources),
                    "parameters": parameters,
                    "processes": processes.count,
                    "precision": asdict(precision),
                    "steps": state.global_step,
                    "best_step": state.best_global_step,
                    "epochs": state.epoch,
                    "seconds": round(time.monotonic() - started, 1),
                    "history": [
                        {"step": entry["step"], "kendall_tau": entry["eval_kendall_tau"]}
                        for entry in state.log_history
                        if "eval_kendall_tau" in entry
                    ],
                },
            }
            inherited = inherited_prompts(config, sources)
            folder.finish(config, sources, model.cpu(), backbone.tokenizer, metrics, inherited)
            return metrics

        return processes.on_first(figures)


def _finished(config: TrainConfig, folder: RunFolder, *, resume: bool) -> dict[str, Any] | None:
    """Checks that the run may have the folder; its metrics if it is finished already."""
    folder.check(config, resume=resume)
    return folder.finished_metrics()


def _prepare(config: TrainConfig, folder: RunFolder, held: ExitStack) -> None:
    """Takes the folder and reads the data into it."""
    held.enter_context(folder.held())
    held.enter_context(folder.unclaimed_left_as_it_was())
    folder.checkpoints.remove_broken()
    load_sources(config, folder.data)
    folder.check_data(data_digest(folder.data))
    inherited_prompts(config, open_sources(config, folder.data))


def _tokenise(
    config: TrainConfig,
    folder: RunFolder,
    sources: Sequence[SourceData],
    tokenizer: PreTrainedTokenizerFast,
    precision: Used,
) -> None:
    """Claims the folder and writes tokens and teachers' scores, unless an interrupted run has."""
    folder.begin(config, data_digest(folder.data), precision)
    for number, source in enumerate(sources):
        if not folder.tokens(number).exists():
            with stage(f"tokenising {source.name}", len(source.train), "prompts") as tokenising:
                write_tokens(
                    folder.tokens(number), source.train, tokenizer, config.model.max_length, tokenising
                )
    scores = [folder.teacher_scores(number) for number in range(len(sources))]
    if config.distillation is not None and not all(path.exists() for path in scores):
        write_teacher_scores(config.distillation, sources, scores)


def _pretrain(
    config: TrainConfig,
    folder: RunFolder,
    backbone: Backbone,
    lists: Sequence[TokenisedPrompts],
    precision: Used,
) -> None:
    """Leaves the pretrained body in the folder, unless an interrupted run has; begun anew if killed."""
    if config.pretraining is None or folder.pretrained.exists():
        return
    if torch.cuda.is_available():
        backbone.model.cuda()
    pretrain(
        backbone.model,
        lists,
        config.pretraining,
        pad_token_id=backbone.tokenizer.pad_token_id,
        max_tokens=config.optimisation.max_tokens_per_forward,
        bf16=precision == "bf16",
        seed=config.seed,
    )
    save_body(backbone.model, folder.pretrained)


def _lists_from(config: TrainConfig, folder: RunFolder, number: int, source: SourceData) -> TokenisedPrompts:
    tokens = folder.tokens(number)
    if config.distillation is None:
        return TokenisedPrompts(tokens)
    teacher = np.load(folder.teacher_scores(number))
    return TokenisedPrompts(tokens, teacher, with_lengths=not source.auxiliary)


def _loss(config: TrainConfig, sources: Sequence[SourceData]) -> Loss:
    loss = make_loss(config.loss, _training_lengths(sources))
    if config.distillation is None:
        return loss
    return Distillation(loss, config.distillation.weight, config.distillation.temperature)


def _heads(config: TrainConfig, sources: Sequence[SourceData]) -> list[int]:
    """Which head of a ``ListScorer`` each source trains: 0 is the ranker's own."""
    separate = [source.auxiliary and config.model.separate_heads for source in sources]
    return [sum(separate[: i + 1]) if separate[i] else 0 for i in range(len(sources))]


def _tokenizer_prompts(sources: Sequence[SourceData]) -> list[str]:
    total = sum(len(source.train) for source in sources)
    share = min(1.0, _TOKENIZER_PROMPTS / total)
    return [
        prompt
        for source in sources
        for prompt in source.train.sample(int(len(source.train) * share)).prompts()
    ]


def _training_lengths(sources: Sequence[SourceData]) -> list[int]:
    return [
        length
        for source in sources
        if not source.auxiliary
        for record in source.train.sample(_BASELINE_PROMPTS)
        for length in record.output_lengths
    ]


def _figures(
    model: RankerModel,
    tokenizer: PreTrainedTokenizerFast,
    config: TrainConfig,
    sources: Sequence[SourceData],
    split: str,
    baselines: bool,
) -> dict[str, Any] | None:
    """The figures of one split; None if it holds too little to order."""
    by_source: dict[str, dict[str, float]] = {}
    for source in sources:
        records = source.validation if split == "validation" else source.test
        if len(records) < 2:
            continue
        rows = encode(tokenizer, [record.prompt for record in records], config.model.max_length)
        with stage(f"scoring {split} prompts of {source.name}", len(rows), "prompts") as scoring:
            scores = score_encoded(model, rows, tokenizer.pad_token_id, scoring=scoring)
        by_source[source.name] = assess(
            scores, records, tuple(source.train.sample(_BASELINE_PROMPTS)), baselines=baselines
        )
    return {**weighted_mean(by_source), "by_source": by_source} if by_source else None
