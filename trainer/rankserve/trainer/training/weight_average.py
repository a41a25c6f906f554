"""An exponential moving average of a model's weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn


class WeightAverage:
    """Follows the weights of a model; begins with those it has now.

    The decay of a step is at most (1 + steps) / (10 + steps), so that the average of a short run is not
    mostly its beginning.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model = model
        self._decay = decay
        self._average = {name: weight.detach().clone() for name, weight in model.named_parameters()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes in the weights after ``step`` steps in all."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, weight in self._model.named_parameters():
            average = self._average[name].to(weight.device)
            self._average[name] = average.lerp_(weight, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model has the averaged weights within the context."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def save(self, path: Path) -> None:
        """Writes the average as safetensors, under the names that the model's weights have."""
        save_file({name: weight.contiguous() for name, weight in self._average.items()}, path)

    def load(self, path: Path) -> None:
        """Goes on from a saved average."""
        saved = load_file(path)
        for name, weight in self._average.items():
            self._average[name] = saved[name].to(weight.device)

    @torch.no_grad()
    def _swap(self) -> None:
        for name, weight in self._model.named_parameters():
            average = self._average[name].to(weight.device, copy=True)
            self._average[name] = weight.detach().clone()
            weight.copy_(average)
