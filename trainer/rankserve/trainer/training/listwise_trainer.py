"""The Hugging Face Trainer, taught to train on lists and to select by Kendall's tau."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerState, TrainingArguments

from rankserve.progress import stage
from rankserve.trainer.config import TrainConfig
from rankserve.trainer.data.lists import ListDataset, RankedList
from rankserve.trainer.evaluation.metrics import tau_report
from rankserve.trainer.losses import Loss
from rankserve.trainer.scoring import score_encoded
from rankserve.trainer.training.callbacks import (
    Averaging,
    OwnDropout,
    Patience,
    ProgressReport,
    WholeCheckpoints,
    average_of,
)
from rankserve.trainer.training.checkpoints import Checkpoints
from rankserve.trainer.training.collation import ListCollator, score_list
from rankserve.trainer.training.distributed import Processes
from rankserve.trainer.training.list_scorer import ListScorer
from rankserve.trainer.training.optimiser import make_optimiser
from rankserve.trainer.training.precision import Used


@dataclass(slots=True, frozen=True)
class ValidationSource:
    """Tokenised validation prompts of one source with their sampled lengths [prompts, samples]."""

    rows: Sequence[Sequence[int]]
    lengths: NDArray[Any]


class ListwiseTrainer(Trainer):
    """Ranks lists; evaluation is tau-b within each source, averaged by its prompts.

    Several processes share each list: every one of them scores some of its prompts, and computes the loss of
    the whole.
    """

    def __init__(
        self,
        scorer: ListScorer,
        config: TrainConfig,
        checkpoints: Checkpoints,
        lists: ListDataset,
        heads: Sequence[int],
        validation: Sequence[ValidationSource],
        pad_token_id: int,
        loss: Loss,
        *,
        precision: Used,
        processes: Processes,
        resume_from: Path | None = None,
    ) -> None:
        """Prepares a run.

        Args:
            scorer: what is trained.
            config: how.
            checkpoints: where to keep them.
            lists: to train on.
            heads: the head of ``scorer`` that each source of ``lists`` trains.
            validation: to select the checkpoint by.
            pad_token_id: to pad with.
            loss: of a list.
            precision: of matrix products.
            processes: that train together.
            resume_from: a checkpoint of this run.
        """
        self._scorer = scorer
        self._settings = config.optimisation
        self._checkpoints = checkpoints
        self._lists = lists
        self._validation = validation
        self._pad_token_id = pad_token_id
        self._loss = loss
        self._collator = ListCollator(heads, pad_token_id, self._settings.max_tokens_per_forward, processes)
        self._processes = processes
        self._resume_from = resume_from
        self._averaging = (
            Averaging(scorer, self._settings.ema_decay, checkpoints, resume_from)
            if self._settings.ema_decay
            else None
        )
        super().__init__(
            model=scorer,
            args=_arguments(
                config,
                checkpoints.path,
                precision,
                lists=len(lists),
                find_unused=processes.count > 1 and _leaves_weights_unused(scorer),
            ),
            data_collator=self._collator,
            train_dataset=lists,
            # Never iterated: evaluate() is our own. The Trainer only asks that there be one.
            eval_dataset=list(validation),
            callbacks=[
                Patience(early_stopping_patience=self._settings.patience),
                OwnDropout(processes),
                *([self._averaging] if self._averaging else []),
                WholeCheckpoints(checkpoints, processes),
            ],
        )
        # Both write to stdout, which belongs to --json.
        for printer in (PrinterCallback, ProgressCallback):
            self.remove_callback(printer)  # type: ignore[no-untyped-call]

    def run(self) -> None:
        """Trains, from ``resume_from`` if there is one, and ends with the weights of the best evaluation."""
        stopped = _stopped(self._resume_from)
        if stopped is not None:
            self.state = stopped
        else:
            total = self._settings.epochs * self._lists.prompts
            done = round(total * _share_done(self._resume_from)) if self._resume_from else 0
            with stage("training", total, "prompts", done) as training:
                self._report = ProgressReport(training)
                self.add_callback(self._report)  # type: ignore[no-untyped-call]
                self.train(resume_from_checkpoint=str(self._resume_from) if self._resume_from else None)
            self._processes.wait()
        best = self._checkpoints.of_step(self.state.best_global_step or 0)
        self._scorer.load_state_dict(
            load_file(average_of(best) if self._averaging else best / "model.safetensors")
        )

    def get_train_dataloader(self) -> DataLoader[RankedList]:
        # Not accelerate's, which would give each process lists of its own. Lists are shuffled where they are
        # made, anew in each epoch.
        return _ListLoader(self._lists, collate_fn=self._collator, pin_memory=torch.cuda.is_available())

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            self.optimizer = make_optimiser(self._scorer, self._settings)
        return self.optimizer

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: Mapping[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        scores, loss = score_list(model, inputs, self._loss, self._processes)
        self._report.scored(len(inputs["labels"]), loss.item())
        return (loss, {"scores": scores}) if return_outputs else loss

    def evaluate(
        self,
        eval_dataset: Dataset[Any] | dict[str, Dataset[Any]] | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """tau-b on the validation split; logged under ``<prefix>_kendall_tau``."""
        average = self._averaging.average if self._averaging else None
        if average is None:
            tau = self._validation_tau()
        else:
            with average.applied():
                tau = self._validation_tau()
        metrics = {f"{metric_key_prefix}_kendall_tau": tau}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _validation_tau(self) -> float:
        weighted, total = 0.0, sum(len(source.rows) for source in self._validation)
        with stage("validating", total, "prompts") as validating:
            for source in self._validation:
                scores = score_encoded(
                    self._scorer.ranker,
                    source.rows,
                    self._pad_token_id,
                    processes=self._processes,
                    scoring=validating,
                )
                weighted += tau_report(scores, source.lengths)["kendall_tau"] * len(source.rows)
            tau = weighted / total
            validating.note(f"{self._report.position(self.state)}, validation tau {tau:.4f}")
        return tau


class _ListLoader(DataLoader[RankedList]):
    """One list at a time, in order; all of them in every process."""

    def set_epoch(self, epoch: int) -> None:
        self.dataset.set_epoch(epoch)  # type: ignore[attr-defined]


def _stopped(checkpoint: Path | None) -> TrainerState | None:
    """The state of a checkpoint after which training was over, which the Trainer itself would go on from."""
    if checkpoint is None:
        return None
    state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    over = state.stateful_callbacks["TrainerControl"]["args"]["should_training_stop"]
    return state if over or state.global_step >= state.max_steps else None


def _share_done(checkpoint: Path) -> float:
    state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    return int(state.global_step) / int(state.max_steps)


def _leaves_weights_unused(scorer: ListScorer) -> bool:
    """Whether a list's loss depends on fewer than all weights, which DistributedDataParallel has to know."""
    row = torch.ones((1, 1), dtype=torch.long, device=next(scorer.parameters()).device)
    was_training = scorer.training
    scorer.eval()([(row, row)]).sum().backward()
    scorer.train(was_training)
    unused = any(weight.grad is None for weight in scorer.parameters() if weight.requires_grad)
    scorer.zero_grad(set_to_none=True)
    return unused


def _arguments(
    config: TrainConfig, checkpoints: Path, precision: Used, *, lists: int, find_unused: bool
) -> TrainingArguments:
    settings = config.optimisation
    steps_per_epoch = -(-lists // settings.lists_per_step)
    interval = max(1, steps_per_epoch // settings.evaluations_per_epoch)
    # What `accelerate config` or an earlier run in this process left there would go before ours.
    os.environ["ACCELERATE_MIXED_PRECISION"] = "no" if precision == "fp32" else precision
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        use_cpu=not torch.accelerator.is_available(),
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        per_device_train_batch_size=1,
        gradient_accumulation_steps=settings.lists_per_step,
        max_grad_norm=settings.max_gradient_norm,
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        lr_scheduler_type={"constant": "constant_with_warmup"}.get(settings.schedule, settings.schedule),
        warmup_steps=round(settings.warmup_share * steps_per_epoch * settings.epochs),
        seed=config.seed,
        eval_strategy="steps",
        eval_steps=interval,
        save_strategy="steps",
        save_steps=interval,
        save_safetensors=True,
        logging_steps=interval,
        metric_for_best_model="kendall_tau",
        greater_is_better=True,
        restore_callback_states_from_checkpoint=True,
        remove_unused_columns=False,
        ddp_find_unused_parameters=find_unused,
        report_to="none",
    )
    if arguments.n_gpu > 1:
        # Started without torchrun: one GPU then, since DataParallel cannot split a list.
        arguments._n_gpu = 1
    return arguments
