"""The sizes of rankers whose quality is weighed against their cost."""

from collections.abc import Sequence

from rankserve.trainer.config import (
    MINILM,
    OPT_MINI,
    OPT_TRANSPLANT,
    MiniShape,
    ModelConfig,
    OptimisationConfig,
    TrainConfig,
    TransplantConfig,
)

TRANSPLANTS = {
    "opt-6x384": [0, 1, 2, 3, 4, 5],
    "opt-3x384": [0, 2, 4],
    "opt-2x384": [0, 3],
    "opt-1x384": [0],
}
FROM_SCRATCH = {
    "opt-4x256": MiniShape(layers=4, hidden_size=256),
    "opt-2x128": MiniShape(layers=2, hidden_size=128),
}
ENCODER = "minilm-6x384"
LINEAR = "linear"
TRAINED = (*TRANSPLANTS, *FROM_SCRATCH, ENCODER)

_FROM_SCRATCH_LEARNING_RATE = 5e-4


def sizes(base: TrainConfig, others: Sequence[TrainConfig] = ()) -> dict[str, TrainConfig]:
    """A config for each size, in everything else as ``base``; and ``base`` itself under its own name.

    A size that ``base`` or one of ``others`` has is that config, so that its run is trained once. Models from
    scratch learn at 5e-4 throughout: the rates of a base that starts from pretrained layers are too careful
    for them.
    """
    found = {}
    for name, layers in TRANSPLANTS.items():
        transplant = (base.model.transplant or TransplantConfig()).model_copy(update={"layers": layers})
        found[name] = _of_size(base, name, backbone=OPT_TRANSPLANT, transplant=transplant)
    for name, mini in FROM_SCRATCH.items():
        found[name] = _from_scratch(_of_size(base, name, backbone=OPT_MINI, mini=mini))
    # Its own head pools at the first token, which MiniLM was not trained for.
    found[ENCODER] = _of_size(base, ENCODER, backbone=MINILM, pooling="mean")
    found = {
        name: next((other for other in (base, *others) if same(config, other)), config)
        for name, config in found.items()
    }
    return found if base in found.values() else {base.name: base, **found}


def same(config: TrainConfig, other: TrainConfig) -> bool:
    """Whether they train the same, whatever they and their licences are called."""
    return all(
        _comparable(config, field) == _comparable(other, field)
        for field in TrainConfig.model_fields
        if field not in ("name", "licence")
    )


def _comparable(config: TrainConfig, field: str) -> object:
    value = getattr(config, field)
    if not isinstance(value, ModelConfig):
        return value
    defaults = {"mini": MiniShape(), "transplant": TransplantConfig()}
    unset = {name: each for name, each in defaults.items() if getattr(value, name) is None}
    return value.model_copy(update=unset)


def _of_size(base: TrainConfig, name: str, **model: object) -> TrainConfig:
    own = {"mini": None, "transplant": None, **model}
    return base.model_copy(update={"name": f"{base.name}-{name}", "model": base.model.model_copy(update=own)})


def _from_scratch(config: TrainConfig) -> TrainConfig:
    plain = OptimisationConfig.model_fields
    optimisation = config.optimisation.model_copy(
        update={
            "learning_rate": _FROM_SCRATCH_LEARNING_RATE,
            "head_learning_rate": plain["head_learning_rate"].default,
            "layer_decay": plain["layer_decay"].default,
        }
    )
    return config.model_copy(update={"optimisation": optimisation})
