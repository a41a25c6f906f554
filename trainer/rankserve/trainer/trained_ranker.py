"""A ranker that was trained before: to evaluate it, or to learn from it."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from rankserve.progress import Stage, stage
from rankserve.trainer.backbones.tokenizers import load_tokenizer
from rankserve.trainer.batches import encode
from rankserve.trainer.model import RankerModel, RankerModelError
from rankserve.trainer.scoring import score_encoded
from rankserve.trainer.training.run_folder import RunFolder


@dataclass(slots=True, frozen=True)
class TrainedRanker:
    """A ranker with what it reads prompts with.

    Attributes:
        model: in evaluation mode.
        tokenizer: cuts on its ``truncation_side``.
        max_length: longest prompt in tokens.
        trained_on: ``known_as`` of each prompt that it saw in training, as far as is known.
    """

    model: RankerModel
    tokenizer: PreTrainedTokenizerFast
    max_length: int
    trained_on: frozenset[str]

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads a run folder, the model in one, or a Hugging Face checkpoint folder with its tokenizer.

        Raises:
            RankerModelError: the folder holds no usable ranker, or an unfinished run.
        """
        folder = RunFolder.finished_at(path) or RunFolder(path)
        if not folder.model.is_dir():
            checkpoint, settings, trained_on = path, {}, frozenset[str]()
        elif folder.is_complete:
            checkpoint, settings, trained_on = folder.model, folder.settings(), folder.trained_on()
        else:
            raise RankerModelError(
                f"{path} is an unfinished run: continue it with `rankserve train --resume`"
            )
        model, tokenizer = RankerModel.from_pretrained(checkpoint), load_tokenizer(checkpoint)
        longest = model.positions or tokenizer.model_max_length
        tokenizer.truncation_side = settings.get("truncation_side", tokenizer.truncation_side)
        return cls(model, tokenizer, int(settings.get("max_length", longest)), trained_on)

    def score(self, prompts: Sequence[str], scoring: Stage | None = None) -> NDArray[np.float32]:
        """Scores [prompts]; higher = shorter answer expected. Part of ``scoring``, or a stage itself."""
        rows = encode(self.tokenizer, prompts, self.max_length)
        with nullcontext(scoring) if scoring else stage("scoring", len(rows), "prompts") as counted:
            return score_encoded(self.model, rows, self.tokenizer.pad_token_id, scoring=counted)
