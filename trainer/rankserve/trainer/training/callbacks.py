"""What happens beside the steps of training: averaged weights, whole checkpoints, progress."""

from collections import deque
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from transformers import (
    EarlyStoppingCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from rankserve.progress import Stage
from rankserve.trainer.training.checkpoints import Checkpoints
from rankserve.trainer.training.distributed import Processes
from rankserve.trainer.training.list_scorer import ListScorer
from rankserve.trainer.training.weight_average import WeightAverage

# Whose mean loss is told.
_RECENT_LISTS = 64


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
    """Says where training is.

    Args:
        training: is advanced by the prompts of each list.
    """

    def __init__(self, training: Stage) -> None:
        self._training = training
        self._losses: deque[float] = deque(maxlen=_RECENT_LISTS)

    def scored(self, prompts: int, loss: float) -> None:
        """A list of so many prompts had this loss."""
        self._losses.append(loss)
        self._training.advance(prompts)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._training.note(self.position(state))

    def position(self, state: TrainerState) -> str:
        """Epoch, step and the mean loss of the last lists."""
        return (
            f"epoch {state.epoch:.2f}, step {state.global_step:,} of {state.max_steps:,}, "
            f"loss {fmean(self._losses):.4f}"
        )
