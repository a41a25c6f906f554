"""What happens beside the steps of training: averaged weights, whole checkpoints, progress lines."""

import time
from pathlib import Path
from typing import Any

import torch
from transformers import (
    EarlyStoppingCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from rankserve.trainer.progress import Progress
from rankserve.trainer.training.checkpoints import Checkpoints
from rankserve.trainer.training.distributed import Processes
from rankserve.trainer.training.list_scorer import ListScorer
from rankserve.trainer.training.weight_average import WeightAverage


class Patience(EarlyStoppingCallback):
    """Stops early. The best weights are loaded by our own trainer, which the base class warns about."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        pass


class OwnDropout(TrainerCallback):
    """Gives each process dropout masks of its own. Those of a resumed run are restored afterwards."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._processes.count > 1:
            torch.manual_seed(args.seed * self._processes.count + self._processes.rank)


class Averaging(TrainerCallback):
    """Keeps an average of the weights, through an interruption too."""

    def __init__(
        self, scorer: ListScorer, decay: float, checkpoints: Checkpoints, resume_from: Path | None
    ) -> None:
        self._scorer = scorer
        self._checkpoints = checkpoints
        self.average: WeightAverage | None = None
        self._decay = decay
        self._resume_from = resume_from

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        self.average = WeightAverage(self._scorer, self._decay)
        if self._resume_from is not None:
            self.average.load(average_of(self._resume_from))

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.average is not None:
            self.average.update(state.global_step)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.average is not None and args.should_save:
            self.average.save(average_of(self._checkpoints.of_step(state.global_step)))


class WholeCheckpoints(TrainerCallback):
    """Declares a checkpoint whole once all processes and callbacks before this one have written theirs."""

    def __init__(self, checkpoints: Checkpoints, processes: Processes) -> None:
        self._checkpoints = checkpoints
        self._processes = processes

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._processes.wait()
        if self._processes.is_first:
            self._checkpoints.complete(state.global_step, keep=state.best_global_step)


def average_of(checkpoint: Path) -> Path:
    """Where a checkpoint keeps the averaged weights."""
    return checkpoint / "averaged.safetensors"


class ProgressReport(TrainerCallback):
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
