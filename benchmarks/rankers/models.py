"""Models in words."""

from pathlib import Path

from rankserve.trainer.config import OPT_MINI, OPT_TRANSPLANT, MiniShape, ModelConfig, TransplantConfig


def describe(model: ModelConfig) -> str:
    """For example "OPT, layers 0, 2, 4 of the encoder transplanted"."""
    if model.backbone == OPT_MINI:
        mini = model.mini or MiniShape()
        return f"OPT {mini.layers} x {mini.hidden_size} from scratch"
    if model.backbone == OPT_TRANSPLANT:
        layers = (model.transplant or TransplantConfig()).layers
        return f"OPT out of MiniLM's layer{'s' * (len(layers) > 1)} {', '.join(map(str, layers))}"
    if model.backbone.startswith("package:"):
        return f"encoder, {model.backbone.removeprefix('package:').partition('/')[0]}"
    # A folder's whole path says more about a machine than about the model.
    return Path(model.backbone).name if model.backbone.startswith("/") else model.backbone
