"""How long training will take, before it starts."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import islice

from transformers import AutoConfig

from rankserve.trainer.backbones import locate
from rankserve.trainer.config import (
    OPT_MINI,
    OPT_TRANSPLANT,
    MiniShape,
    ModelConfig,
    Source,
    TrainConfig,
    TransplantConfig,
)
from rankserve.trainer.data.sources import read_source

CORES = 2
# Measured with an OPT of 6 layers x 384 in bf16, on a core with AVX-512 and bf16. One with AVX2 alone
# is about half as fast.
TOKENS_PER_S_AND_CORE = 1_700
REFERENCE_LAYERS, REFERENCE_HIDDEN_SIZE = 6, 384
# Embeddings, head, loss and optimiser cost about as much as half a layer of that.
_FIXED_LAYERS = 0.5
_CHARACTERS_PER_TOKEN = 4.2
# A teacher only looks at each prompt once: the forward pass is a third of a training step.
_FORWARD_SHARE = 1 / 3


def training_seconds(config: TrainConfig) -> float:
    """Roughly what a run takes on an idle machine with 2 cores, if it does not stop early.

    Raises:
        RecordError, DataError, OSError: the training data cannot be read.
    """
    tokens = sum(
        source_tokens(source, config.model.max_length) * (1.0 if source.auxiliary else config.split[0])
        for source in config.sources
    )
    passes = config.optimisation.epochs * _relative_cost(*shape(config.model))
    if config.distillation is not None:
        passes += len(config.distillation.teachers) * _FORWARD_SHARE
    return passes * tokens / (TOKENS_PER_S_AND_CORE * CORES)


def announcement(missing: Sequence[TrainConfig], wanted: int) -> str:
    """A line that says what is about to be trained."""
    if not missing:
        return f"all {wanted} runs are there: nothing to train"
    total = sum(map(training_seconds, missing))
    return (
        f"{len(missing)} of {wanted} runs to train: about {duration(total)} on an idle machine with "
        f"{CORES} cores with bf16 (interrupted, the same command goes on)"
    )


def duration(seconds: float) -> str:
    """ "40 s", "12 min" or "1 h 05 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


@lru_cache(maxsize=64)
def source_tokens(source: Source, max_length: int) -> float:
    """About so many tokens in one pass over a source."""
    return sum(
        min(len(record.prompt) / _CHARACTERS_PER_TOKEN, max_length)
        for record in islice(read_source(source), source.limit)
    )


def shape(model: ModelConfig) -> tuple[int, int]:
    """Layers and hidden size."""
    if model.backbone == OPT_MINI:
        mini = model.mini or MiniShape()
        return mini.layers, mini.hidden_size
    transplant = model.transplant or TransplantConfig()
    name = transplant.donor if model.backbone == OPT_TRANSPLANT else model.backbone
    config = AutoConfig.from_pretrained(locate(name))
    layers = len(transplant.layers) if model.backbone == OPT_TRANSPLANT else int(config.num_hidden_layers)
    return layers, int(config.hidden_size)


def _relative_cost(layers: int, hidden_size: int) -> float:
    """Of a token, 1 for the reference."""
    scale = (hidden_size / REFERENCE_HIDDEN_SIZE) ** 2
    return (layers * scale + _FIXED_LAYERS) / (REFERENCE_LAYERS + _FIXED_LAYERS)
