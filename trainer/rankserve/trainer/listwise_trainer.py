"""The Hugging Face Trainer, taught to train on lists and to select by Kendall's tau."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, SequentialSampler
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from rankserve.trainer.batches import pad, parts_by_length
from rankserve.trainer.config import TrainConfig
from rankserve.trainer.lists import ListDataset, RankedPrompt
from rankserve.trainer.losses import list_mle
from rankserve.trainer.metrics import tau_report
from rankserve.trainer.model import RankerModel
from rankserve.trainer.scoring import score_encoded

Progress = Callable[[str], None]


@dataclass(slots=True, frozen=True)
class ValidationSource:
    """Tokenised validation prompts of one source with their sampled lengths [prompts, samples]."""

    rows: Sequence[tuple[int, ...]]
    lengths: NDArray[Any]


class ListwiseTrainer(Trainer):
    """One step ranks one list; evaluation is tau-b within each source, averaged by its prompts."""

    def __init__(
        self,
        model: RankerModel,
        config: TrainConfig,
        checkpoints: Path,
        lists: ListDataset,
        validation: Sequence[ValidationSource],
        pad_token_id: int,
        progress: Progress,
    ) -> None:
        self._pad_token_id = pad_token_id
        self._max_tokens = config.optimisation.max_tokens_per_forward
        self._lists = lists
        self._validation = validation
        super().__init__(
            model=model,
            args=_arguments(config, checkpoints, steps_per_epoch=len(lists)),
            data_collator=self._collate,
            train_dataset=lists,
            # Never iterated: evaluate() is our own. The Trainer only asks that there be one.
            eval_dataset=list(validation),
            callbacks=[
                EarlyStoppingCallback(early_stopping_patience=config.optimisation.patience),
                _ProgressReport(progress),
            ],
        )
        # Both write to stdout, which belongs to --json.
        for printer in (PrinterCallback, ProgressCallback):
            self.remove_callback(printer)  # type: ignore[no-untyped-call]

    def _collate(self, lists: list[list[RankedPrompt]]) -> dict[str, Any]:
        """One list as parts of similar length; labels [items] in the order of the parts."""
        [items] = lists
        parts = parts_by_length([len(item.input_ids) for item in items], self._max_tokens)
        labels = torch.tensor([items[i].label for part in parts for i in part], dtype=torch.float64)
        return {
            "parts": [pad([items[i].input_ids for i in part], self._pad_token_id) for part in parts],
            # Their order is all that the loss reads, and not every device knows float64.
            "labels": torch.unique(labels, return_inverse=True)[1],
        }

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: Mapping[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        scores = torch.cat(
            [model(input_ids, attention_mask) for input_ids, attention_mask in inputs["parts"]]
        )
        loss = list_mle(scores, inputs["labels"])
        return (loss, {"scores": scores}) if return_outputs else loss

    def evaluate(
        self,
        eval_dataset: Dataset[Any] | dict[str, Dataset[Any]] | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """tau-b on the validation split; logged under ``<prefix>_kendall_tau``."""
        model = self.accelerator.unwrap_model(self.model)
        weighted = 0.0
        for source in self._validation:
            scores = score_encoded(model, source.rows, self._pad_token_id)
            weighted += tau_report(scores, source.lengths)["kendall_tau"] * len(source.rows)
        tau = weighted / sum(len(source.rows) for source in self._validation)
        metrics = {f"{metric_key_prefix}_kendall_tau": tau}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _get_train_sampler(self, train_dataset: Dataset[Any] | None = None) -> SequentialSampler:
        # The lists are shuffled where they are made, anew in each epoch.
        return SequentialSampler(self._lists)


def _arguments(config: TrainConfig, checkpoints: Path, steps_per_epoch: int) -> TrainingArguments:
    settings = config.optimisation
    interval = max(1, steps_per_epoch // settings.evaluations_per_epoch)
    return TrainingArguments(
        output_dir=str(checkpoints),
        per_device_train_batch_size=1,
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        lr_scheduler_type={"constant": "constant_with_warmup"}.get(settings.schedule, settings.schedule),
        warmup_steps=round(settings.warmup_share * steps_per_epoch * settings.epochs),
        optim="adamw_torch",
        seed=config.seed,
        eval_strategy="steps",
        eval_steps=interval,
        save_strategy="steps",
        save_steps=interval,
        save_total_limit=2,
        save_safetensors=True,
        logging_steps=interval,
        load_best_model_at_end=True,
        metric_for_best_model="kendall_tau",
        greater_is_better=True,
        restore_callback_states_from_checkpoint=True,
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        report_to="none",
    )


class _ProgressReport(TrainerCallback):
    """One line for each evaluation."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._loss = float("nan")
        self._started: tuple[float, int] | None = None

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._started is None:
            self._started = (time.monotonic(), state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        self._loss = (logs or {}).get("loss", self._loss)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        tau = (metrics or {}).get("eval_kendall_tau", float("nan"))
        line = (
            f"epoch {state.epoch:.2f}, step {state.global_step} of {state.max_steps}: "
            f"loss {self._loss:.4f}, validation tau {tau:.4f}"
        )
        if self._started is not None and state.global_step > self._started[1]:
            seconds, first = self._started
            each = (time.monotonic() - seconds) / (state.global_step - first)
            line += f", at most {each * (state.max_steps - state.global_step) / 60:.1f} min left"
        self._progress(line)
