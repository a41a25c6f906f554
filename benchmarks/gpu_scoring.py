"""How fast a GPU scores prompts: ONNX Runtime in fp16 against torch in fp16 on the same GPU.

Exports an OPT-125M ranker (random weights of that shape unless --model names a checkpoint), scores batches
through the CUDA execution provider as the server does (I/O binding, batches padded to a few shapes), checks
the scores against torch in fp32, and prints latency and prompts per second beside torch's. Then it scores
batches of random sizes and lengths, as traffic has them, with and without those few shapes. A batch's time
spans from token ids in host memory to scores in host memory, for all. Exits with status 1 if the GPU is not
what runs it, or if the scores are wrong.

    python benchmarks/gpu_scoring.py                             # random weights, no download
    python benchmarks/gpu_scoring.py --model facebook/opt-125m
    python benchmarks/gpu_scoring.py --dry-run-cpu               # the same steps on a tiny model, no GPU

Needs `pip install '.[exporter]'` with a CUDA build of torch, on Linux x86-64.
"""

import argparse
import copy
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
import transformers
from transformers import OPTConfig

from rankserve.client.load.machine import describe_machine
from rankserve.exporter.agreement import discordant_share
from rankserve.exporter.graph import INPUTS, OUTPUT, export_graph
from rankserve.progress import report_on, stage, track
from rankserve.server.ranking.device_session import DeviceSession, execution
from rankserve.trainer.model import RankerModel

PAD = 1
WARM_UP_RUNS = 10
# fp16 keeps 11 bits; a dozen layers add their roundings up.
MAX_RELATIVE_DIFFERENCE = 0.02
MAX_RANK_FLIPS = 0.01

Ids = npt.NDArray[np.int64]
Score = Callable[[Ids, Ids], npt.NDArray[np.float32]]


@dataclass(slots=True, frozen=True)
class Timing:
    """Of one batch size on one runtime; latencies of a batch in milliseconds."""

    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    prompts_per_s: float


@dataclass(slots=True, frozen=True)
class Row:
    """Attributes:
    batch: prompts a batch.
    onnx: ONNX Runtime.
    torch: the baseline.
    max_difference: largest |ONNX fp16 - torch fp32| of a score.
    rank_flips: share of prompt pairs that they order differently.
    """

    batch: int
    onnx: Timing
    torch: Timing
    max_difference: float
    rank_flips: float


@dataclass(slots=True, frozen=True)
class Mixed:
    """Batches of random size and length, by shapes of the server's buckets and by their own."""

    batches: int
    bucketed_prompts_per_s: float
    bucketed_shapes: int
    plain_prompts_per_s: float
    plain_shapes: int


def main() -> None:
    options = parse_options()
    device = "cpu" if options.dry_run_cpu else "cuda"
    if device == "cuda" and not torch.cuda.is_available():
        sys.exit("no GPU that torch can use: run this where one is, or with --dry-run-cpu")
    provider = "CPUExecutionProvider" if options.dry_run_cpu else "CUDAExecutionProvider"
    torch.manual_seed(options.seed)
    model = load(options)
    half = copy.deepcopy(model).half()
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "model.onnx"
        with stage("tracing the graph"):
            traced = export_graph(half, max_length=model.config.max_position_embeddings)
        graph.write_bytes(traced.SerializeToString())
        nodes = nodes_by_provider(graph, provider)
        session = open_session(graph, provider)
        onnx_score = onnx_scorer(session, device, options.length)
        with stage(f"timing {2 * options.runs:,} batches of random shapes, bound and unbound"):
            mixed = measure_mixed(session, device, options, model.config.vocab_size)
    described = describe(device)
    if not options.json:
        print_header(described, options, nodes)
    half_score = torch_scorer(half.to(device), device)
    exact_score = torch_scorer(model.to(device), device)
    generator = np.random.default_rng(options.seed)
    rows = []
    for batch in track(options.batches, "timing", "batch sizes"):
        inputs = draw_batch(generator, batch, options.length, model.config.vocab_size)
        max_difference, rank_flips = check(onnx_score(*inputs), exact_score(*inputs))
        row = Row(
            batch,
            measure(onnx_score, inputs, options.runs),
            measure(half_score, inputs, options.runs),
            max_difference,
            rank_flips,
        )
        rows.append(row)
        if not options.json:
            print_row(row)
    if options.json:
        results = {
            "rows": [asdict(row) for row in rows],
            "mixed": asdict(mixed),
            "nodes_by_provider": nodes,
        }
        print(json.dumps({**described, "seed": options.seed, "length": options.length, **results}))
    else:
        ratio = mixed.bucketed_prompts_per_s / mixed.plain_prompts_per_s
        print(
            f"\n{mixed.batches} batches of random size and length, prompts/s: "
            f"{mixed.bucketed_prompts_per_s:.0f} in {mixed.bucketed_shapes} shapes with bound inputs, "
            f"{mixed.plain_prompts_per_s:.0f} in {mixed.plain_shapes} shapes unbound ({ratio:.2f} times)"
        )


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="hub id or folder of a ranker; default: OPT-125M with random weights")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32, 128], help="prompts a batch")
    parser.add_argument("--length", type=int, default=64, help="longest prompt in tokens")
    parser.add_argument("--runs", type=int, default=500, help="measured runs of each batch size")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--dry-run-cpu",
        action="store_true",
        help="a tiny model on the CPU: proves the steps, measures nothing",
    )
    return parser.parse_args()


def load(options: argparse.Namespace) -> RankerModel:
    if options.model:
        return RankerModel.from_pretrained(options.model)
    if not options.dry_run_cpu:
        # OPTConfig's defaults are the shape of facebook/opt-125m.
        return RankerModel.from_config(OPTConfig()).eval()  # type: ignore[no-untyped-call]
    tiny = OPTConfig(  # type: ignore[no-untyped-call]
        vocab_size=1000,
        hidden_size=64,
        word_embed_proj_dim=64,
        ffn_dim=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
        init_std=0.1,
    )
    return RankerModel.from_config(tiny).eval()


def open_session(
    graph: Path, provider: str, options: onnxruntime.SessionOptions | None = None
) -> onnxruntime.InferenceSession:
    if provider == "CUDAExecutionProvider" and hasattr(onnxruntime, "preload_dlls"):
        # The CUDA libraries that torch brought along.
        onnxruntime.preload_dlls()
    session = onnxruntime.InferenceSession(graph, options, providers=[provider])
    # ONNX Runtime falls back to the CPU silently.
    if session.get_providers()[0] != provider:
        sys.exit(
            f"asked ONNX Runtime for {provider}, got {session.get_providers()} (this build knows "
            f"{onnxruntime.get_available_providers()}): install onnxruntime-gpu and its CUDA libraries"
        )
    return session


def nodes_by_provider(graph: Path, provider: str) -> dict[str, int]:
    """How many nodes each provider runs: a few shape computations stay on the CPU, products must not.

    Exits if a matrix product runs elsewhere than on the provider.
    """
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(graph.with_name("profile"))
    session = open_session(graph, provider, options)
    ids = np.full((2, 8), 5, dtype=np.int64)
    session.run([OUTPUT], dict(zip(INPUTS, (ids, np.ones_like(ids)), strict=True)))
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    ran = [event["args"] for event in events if event.get("name", "").endswith("_kernel_time")]
    elsewhere = {
        node["op_name"]
        for node in ran
        if node["op_name"].endswith(("MatMul", "Gemm")) and node["provider"] != provider
    }
    if elsewhere:
        sys.exit(f"{sorted(elsewhere)} did not run on {provider}")
    return dict(Counter(node["provider"] for node in ran))


def onnx_scorer(session: onnxruntime.InferenceSession, device: str, length: int) -> Score:
    return DeviceSession(session, device, max_length=length, pad_token_id=PAD).run


def measure_mixed(
    session: onnxruntime.InferenceSession, device: str, options: argparse.Namespace, vocabulary: int
) -> Mixed:
    """Each way gets the same batches, after the same number of others to warm up on."""
    generator = np.random.default_rng(options.seed + 1)
    largest = max(options.batches)
    batches = [
        draw_batch(
            generator,
            int(generator.integers(1, largest + 1)),
            int(generator.integers(1, options.length + 1)),
            vocabulary,
        )
        for _ in range(2 * options.runs)
    ]
    warm_up, measured = batches[: options.runs], batches[options.runs :]
    bucketed = DeviceSession(session, device, max_length=options.length, pad_token_id=PAD)
    plain = execution(session, "CPUExecutionProvider", max_length=options.length, pad_token_id=PAD)
    prompts = sum(len(ids) for ids, _ in measured)
    rates = []
    for score in (bucketed.run, plain):
        for inputs in warm_up:
            score(*inputs)
        started = time.perf_counter()
        for inputs in measured:
            score(*inputs)
        rates.append(prompts / (time.perf_counter() - started))
    return Mixed(
        batches=len(measured),
        bucketed_prompts_per_s=rates[0],
        bucketed_shapes=len(bucketed.shapes),
        plain_prompts_per_s=rates[1],
        plain_shapes=len({ids.shape for ids, _ in measured}),
    )


def torch_scorer(model: RankerModel, device: str) -> Score:
    def score(input_ids: Ids, attention_mask: Ids) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            inputs = (torch.from_numpy(value).to(device) for value in (input_ids, attention_mask))
            scores: npt.NDArray[np.float32] = model(*inputs).cpu().numpy()
        return scores

    return score


def draw_batch(generator: np.random.Generator, batch: int, length: int, vocabulary: int) -> tuple[Ids, Ids]:
    """Prompts of half to all of `length` tokens, padded on the right."""
    lengths = generator.integers(max(1, length // 2), length + 1, size=batch)
    lengths[0] = length
    attention_mask = (np.arange(length) < lengths[:, None]).astype(np.int64)
    input_ids = generator.integers(3, vocabulary, size=(batch, length))
    return np.where(attention_mask == 1, input_ids, PAD), attention_mask


def check(scores: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Largest difference and share of reordered pairs; exits if either is out of bounds."""
    difference = float(np.abs(scores - expected).max())
    flips = (
        discordant_share(scores.astype(np.float64), expected.astype(np.float64)) if len(scores) > 1 else 0.0
    )
    limit = MAX_RELATIVE_DIFFERENCE * max(1.0, float(np.abs(expected).max()))
    if not difference <= limit or flips > MAX_RANK_FLIPS:
        sys.exit(
            f"the scores are wrong: they differ from torch fp32 by up to {difference:.3g} (allowed "
            f"{limit:.3g}) and reorder {flips:.2%} of pairs (allowed {MAX_RANK_FLIPS:.2%})"
        )
    return difference, flips


def measure(score: Score, inputs: tuple[Ids, Ids], runs: int) -> Timing:
    for _ in range(WARM_UP_RUNS):
        score(*inputs)
    seconds = np.empty(runs)
    for run in range(runs):
        started = time.perf_counter()
        score(*inputs)
        seconds[run] = time.perf_counter() - started
    p50, p90, p99 = np.percentile(seconds, [50, 90, 99]) * 1e3
    return Timing(
        mean_ms=float(seconds.mean() * 1e3),
        p50_ms=float(p50),
        p90_ms=float(p90),
        p99_ms=float(p99),
        max_ms=float(seconds.max() * 1e3),
        prompts_per_s=len(inputs[0]) * runs / float(seconds.sum()),
    )


def describe(device: str) -> dict[str, object]:
    name = torch.cuda.get_device_name(0) if device == "cuda" else "no GPU: dry run, the times mean nothing"
    return {
        "device": name,
        "machine": describe_machine(),
        "versions": {
            module.__name__: str(module.__version__) for module in (torch, onnxruntime, transformers)
        },
    }


def print_header(described: dict[str, object], options: argparse.Namespace, nodes: dict[str, int]) -> None:
    print(f"device: {described['device']} ({described['machine']})")
    print(f"versions: {described['versions']}; seed {options.seed}; {options.runs} runs a batch size")
    print(f"model: {options.model or 'random weights'}, fp16; prompts of up to {options.length} tokens")
    print(f"nodes by provider: {nodes}\n")
    print(
        "| batch | runtime | mean ms | p50 | p90 | p99 | max | prompts/s | against torch | max diff | flips |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")


def print_row(row: Row) -> None:
    for name, timing in (("ONNX Runtime", row.onnx), ("torch", row.torch)):
        figures = (timing.mean_ms, timing.p50_ms, timing.p90_ms, timing.p99_ms, timing.max_ms)
        cells = [f"{value:.2f}" for value in figures] + [f"{timing.prompts_per_s:.0f}"]
        if name == "torch":
            cells += ["1.00", "", ""]
        else:
            ratio = timing.prompts_per_s / row.torch.prompts_per_s
            cells += [f"{ratio:.2f}", f"{row.max_difference:.1e}", f"{row.rank_flips:.2%}"]
        print(f"| {row.batch} | {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    with report_on(sys.stderr):
        main()
