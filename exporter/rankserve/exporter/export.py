"""A trained ranker becomes a published version: graph, parity, precision, checks, calibration, files."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from tokenizers import Tokenizer

from rankserve.exporter.agreement import (
    Agreement,
    Scores,
    agreements,
    discordant_share,
    mean_ceiling,
    mean_tau,
)
from rankserve.exporter.calibration import calibrate
from rankserve.exporter.card import model_card
from rankserve.exporter.coverage import measure_coverage
from rankserve.exporter.errors import ExportError, SourceError
from rankserve.exporter.gates import MIN_TAU, check_batch_effect, check_prompts, check_tau, check_tau_drop
from rankserve.exporter.graph import export_graph
from rankserve.exporter.optimise import Level, Optimised, optimise
from rankserve.exporter.parity import Parity, check_parity
from rankserve.exporter.probes import record_probes
from rankserve.exporter.publish import Published, publish
from rankserve.exporter.quantise import quantise
from rankserve.exporter.session import GraphScorer
from rankserve.exporter.source import RankerSource, read_source
from rankserve.exporter.static_int8 import static_int8
from rankserve.exporter.tokenization import encode, publishable_tokenizer
from rankserve.exporter.validation import ValidationSet, read_validation
from rankserve.progress import stage, tell
from rankserve.records.prompts import PromptRecord
from rankserve.records.ranker_version import RankerManifest
from rankserve.trainer.model import RankerModel, RankerModelError

Precision = Literal["int8", "fp32", "fp16"]
_PACKAGES = ("torch", "transformers", "onnx", "onnxruntime-gpu", "onnxruntime")


@dataclass(slots=True, frozen=True)
class ExportSettings:
    """What to export and how.

    Attributes:
        repository: folder of rankers that gets the version.
        name: of the ranker.
        data: prompts with lengths for the checks; None: the run's own validation split.
        lengths_of: whose lengths, where the data has those of several LLMs.
        precision: of the published model.
        optimize: level of graph optimisation; None: none, ONNX Runtime fuses when it opens the file.
        activate: make it the active version; None: only if the repository has none.
        minimum_tau: Kendall's tau below which nothing is published.
        max_prompts: how many validation prompts to score, drawn at random from more.
        seed: of the shapes, prompts and batches that are drawn.
    """

    repository: Path
    name: str
    data: Path | None = None
    lengths_of: str | None = None
    precision: Precision = "int8"
    optimize: Level | None = None
    activate: bool | None = None
    minimum_tau: float = MIN_TAU
    max_prompts: int = 4000
    seed: int = 0


def export_ranker(folder: Path, settings: ExportSettings) -> Published:
    """Exports a run folder or Hugging Face sequence-classification folder.

    Args:
        folder: what to export.
        settings: where to and how.

    Raises:
        SourceError: the folder cannot be exported.
        GateError: a check failed; the repository is as it was.
        ExportError: torch cannot export the model, or optimum cannot optimise it.
        RecordError: a line of the validation data cannot be used.
        OSError: a file cannot be read or written.
    """
    _check_settings(settings)
    source = read_source(folder)
    with stage("reading validation prompts"):
        validation = read_validation(
            source,
            settings.data,
            lengths_of=settings.lengths_of,
            max_prompts=settings.max_prompts,
            seed=settings.seed,
        )
    records = validation.records
    check_prompts(len(records))
    if validation.trained_on:
        tell(f"Left out {validation.trained_on} prompts that the ranker was trained on")
    tokenizer, rows = _tokenised(source, records)
    model = _load(source)
    fp32, parity = _fp32_graph(model, source, settings)
    tell(f"ONNX graph matches torch within {parity.max_difference:.1e} on {parity.batches} batches")
    fp32_scores = _score(GraphScorer(fp32, source.pad_token_id), rows, "fp32")
    tau_fp32 = mean_tau(agreements(fp32_scores, validation.sets))
    needed = check_tau(tau_fp32, len(records), settings.minimum_tau)
    tell(f"Kendall's tau {tau_fp32:.4f} in fp32 on {len(records)} validation prompts")

    graph = _at_precision(fp32, model, source, settings, rows)
    scorer = GraphScorer(graph, source.pad_token_id)
    scores = _score(scorer, rows, settings.precision) if graph is not fp32 else fp32_scores
    found = agreements(scores, validation.sets)
    check_tau_drop(mean_tau(found), tau_fp32, settings.precision)
    optimisation: dict[str, float] = {}
    applied = ""
    if settings.optimize is not None:
        optimised = _optimised(graph, model, source, settings, settings.optimize)
        applied = optimised.applied
    if applied:
        unoptimised = scores
        graph = optimised.graph
        scorer = GraphScorer(graph, source.pad_token_id)
        scores = _score(scorer, rows, applied)
        found = agreements(scores, validation.sets)
        check_tau_drop(mean_tau(found), tau_fp32, f"--optimize {settings.optimize}")
        optimisation = {
            "optimization_max_difference": float(np.abs(scores - unoptimised).max()),
            "optimization_rank_flips": discordant_share(scores, unoptimised),
        }
    with stage("checking what batch mates do to scores"):
        effect = check_batch_effect(scorer, rows, seed=settings.seed)
    tell(
        f"Kendall's tau {mean_tau(found):.4f} in {settings.precision}; batch mates reorder "
        f"{effect.rank_flips:.3%} of prompt pairs"
    )
    calibrated_scores, calibrated_records = _of_source(source.calibration_source, validation.sets, scores)
    with stage("calibrating expected lengths"):
        coverage = measure_coverage(calibrated_scores, calibrated_records, seed=settings.seed)
    tell(f"Calibration: {coverage}")
    manifest = RankerManifest(
        name=settings.name,
        version=0,
        sha256={},
        max_length=source.max_length,
        pad_token_id=source.pad_token_id,
        precision=settings.precision,
        base_model=source.base_model,
        neutral_score=float(np.median(scores)),
        calibration=calibrate(calibrated_scores, calibrated_records),
        truncation_side=source.truncation_side,
        metrics={
            **_tau_metrics(found, tau_fp32, source.test),
            "kendall_tau_needed": needed,
            "parity_max_difference": parity.max_difference,
            "rank_flips_in_batches": effect.rank_flips,
            "score_move_in_batches": effect.max_move,
            "rank_flips_against_fp32": discordant_share(scores, fp32_scores),
            **optimisation,
            "validation_prompts": float(len(records)),
        },
        training_data=source.training_data,
        licence=source.licence,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=_versions(),
        coverage=coverage,
        probes=record_probes(scorer, tokenizer, source),
        optimization=applied,
    )
    with stage("publishing"):
        return publish(
            settings.repository,
            graph,
            tokenizer,
            manifest,
            partial(model_card, validation=found),
            activate=settings.activate,
        )


def _score(scorer: GraphScorer, rows: Sequence[list[int]], form: str) -> Scores:
    with stage(f"scoring validation prompts in {form}", len(rows), "prompts") as scoring:
        return scorer.score(rows, scoring)


def _check_settings(settings: ExportSettings) -> None:
    if settings.optimize == "O4" and settings.precision != "fp16":
        raise ExportError(
            f"O4 stores the model in fp16, for GPUs: pass --precision fp16 with it, not {settings.precision}"
        )


def _tokenised(source: RankerSource, records: Sequence[PromptRecord]) -> tuple[Tokenizer, list[list[int]]]:
    prompts = [record.prompt for record in records]
    tokenizer = publishable_tokenizer(source, prompts[:200])
    rows = encode(tokenizer, source, prompts)
    if not all(rows):
        raise SourceError(f"the tokenizer of {source.model} finds no tokens in some validation prompts")
    return tokenizer, rows


def _load(source: RankerSource) -> RankerModel:
    try:
        return RankerModel.from_pretrained(source.model)
    except RankerModelError as error:
        raise SourceError(str(error)) from error


def _fp32_graph(
    model: RankerModel, source: RankerSource, settings: ExportSettings
) -> tuple[onnx.ModelProto, Parity]:
    with stage("tracing the graph"):
        graph = export_graph(model, max_length=source.max_length)
    return graph, _check_parity(graph, model, source, settings)


def _check_parity(
    graph: onnx.ModelProto, model: RankerModel, source: RankerSource, settings: ExportSettings
) -> Parity:
    return check_parity(
        model,
        GraphScorer(graph, source.pad_token_id),
        max_length=source.max_length,
        pad_token_id=source.pad_token_id,
        seed=settings.seed,
    )


def _at_precision(
    fp32: onnx.ModelProto,
    model: RankerModel,
    source: RankerSource,
    settings: ExportSettings,
    rows: Sequence[list[int]],
) -> onnx.ModelProto:
    if settings.precision == "int8":
        with stage("quantising to int8"):
            lean = static_int8(
                model,
                rows,
                max_length=source.max_length,
                pad_token_id=source.pad_token_id,
                seed=settings.seed,
            )
            if lean is None:
                tell(
                    f"{type(model.classifier).__name__} as configured has no lean int8 graph: a general one, "
                    "about half as fast, scales its activations token by token"
                )
            return lean or quantise(fp32)
    # O4 makes fp16 of fp32 by itself.
    if settings.precision == "fp16" and settings.optimize != "O4":
        with stage("tracing the graph in fp16"):
            return export_graph(copy.deepcopy(model).half(), max_length=source.max_length)
    return fp32


def _optimised(
    graph: onnx.ModelProto,
    model: RankerModel,
    source: RankerSource,
    settings: ExportSettings,
    level: Level,
) -> Optimised:
    with stage(f"optimising the graph by {level}"):
        optimised = optimise(graph, model.config, level)
    fused = ", ".join(f"{count} {name}" for name, count in sorted(optimised.fused.items())) or "nothing"
    tell(
        f"{level} ({optimised.configured_as} patterns) fused {fused}: "
        f"{len(graph.graph.node)} nodes became {len(optimised.graph.graph.node)}"
    )
    if not optimised.applied:
        tell(
            f"WARNING: --optimize {level} did nothing to this graph: it is published as it was, and "
            "ranker.json states no optimisation"
        )
    elif optimised.applied != level:
        tell(
            f"WARNING: --optimize {level} fused nothing and only simplified the graph: ranker.json states "
            f"{optimised.applied}"
        )
    # O3 and O4 approximate on purpose; the order of the validation prompts judges them.
    if settings.precision == "fp32" and level in ("O1", "O2"):
        _check_parity(optimised.graph, model, source, settings)
    return optimised


def _of_source(
    name: str, sets: Sequence[ValidationSet], scores: Scores
) -> tuple[Scores, tuple[PromptRecord, ...]]:
    """Scores and prompts of one set; of the largest if none has the name."""
    starts = np.cumsum([0, *(len(each.records) for each in sets)])
    named = [index for index, each in enumerate(sets) if each.source == name]
    index = named[0] if named else max(range(len(sets)), key=lambda at: len(sets[at].records))
    return scores[starts[index] : starts[index + 1]], sets[index].records


def _tau_metrics(found: list[Agreement], tau_fp32: float, test: Mapping[str, float]) -> dict[str, float]:
    metrics = {"kendall_tau": mean_tau(found), "kendall_tau_fp32": tau_fp32}
    ceiling = mean_ceiling(found)
    if ceiling is not None:
        metrics["kendall_tau_ceiling"] = ceiling
    if "kendall_tau" in test:
        metrics["kendall_tau_test"] = test["kendall_tau"]
    return metrics | {f"test_{name}": value for name, value in test.items() if name != "kendall_tau"}


def _versions() -> dict[str, str]:
    """Of the packages that made the file, those that are installed."""
    found = {}
    for package in ("rankserve", *_PACKAGES):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
