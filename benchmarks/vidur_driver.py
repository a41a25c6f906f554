"""Runs Vidur on a trace and times its event loop. `simulation_speed.py` starts it with Vidur's own Python.

Reads one JSON object on stdin, prints one on stdout; Vidur's log goes to stderr. The time is that of
`Simulator.run()` alone: imports, training and tabulating the step-time predictor, making the requests and
the arrival events are outside it. Vidur keeps its metrics or not, as asked; traces and plots are off: what is
reported is read from its requests afterwards. Nothing is written into its checkout.
"""

import atexit
import contextlib
import csv
import hashlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MODEL, DEVICE = "meta-llama/Meta-Llama-3-8B", "a100"
GIT_LFS_POINTER = b"version https://git-lfs"


def main() -> None:
    settings = json.load(sys.stdin)
    with contextlib.redirect_stdout(sys.stderr):
        sys.path.insert(0, settings["vidur_dir"])
        result = simulate(settings)
    json.dump(result, sys.stdout)


def simulate(settings: dict[str, Any]) -> dict[str, Any]:
    from vidur.config import SimulationConfig, TraceRequestGeneratorConfig  # type: ignore[import-not-found]
    from vidur.entities import Batch, Request  # type: ignore[import-not-found]
    from vidur.request_generator import RequestGeneratorRegistry  # type: ignore[import-not-found]
    from vidur.simulator import Simulator  # type: ignore[import-not-found]
    from vidur.utils.random import set_seeds  # type: ignore[import-not-found]

    attention_file, is_stand_in = attention_table(settings)
    # Vidur's own trace reader gives requests numpy scalars, which slow every step down.
    trace = zip(settings["arrivals_s"], settings["input_tokens"], settings["output_tokens"], strict=True)
    requests = [Request(arrival, inputs, outputs) for arrival, inputs, outputs in trace]

    class Generator:
        def __init__(self, config: object) -> None:
            pass

        def generate(self) -> list[Any]:
            return requests

    generator_type = TraceRequestGeneratorConfig.get_type()
    RequestGeneratorRegistry.unregister(generator_type)
    RequestGeneratorRegistry.register(generator_type, Generator)
    set_seeds(settings["seed"])
    started = time.perf_counter()
    simulator = Simulator(SimulationConfig(**configure(settings, attention_file)))
    # Vidur writes its metrics when the process ends.
    atexit.unregister(simulator._write_output)
    ready, cpu_ready = time.perf_counter(), time.process_time()
    simulator.run()
    ended, cpu_ended = time.perf_counter(), time.process_time()
    return {
        "seconds": ended - ready,
        "cpu_seconds": cpu_ended - cpu_ready,
        "setup_seconds": ready - started,
        "steps": Batch.generate_id(),
        "preemptions": sum(request.num_restarts for request in requests),
        "started_s": [request.scheduled_at for request in requests],
        "first_token_s": [request.prefill_completed_at for request in requests],
        "completed_s": [request.completed_at for request in requests],
        "attention_table": "stand-in" if is_stand_in else "measured",
        "versions": versions(),
    }


def configure(settings: dict[str, Any], attention_file: Path) -> dict[str, Any]:
    """One replica under the Sarathi scheduler: chunked prefill beside decodes, as vLLM does today."""
    from vidur.config import (
        ClusterConfig,
        MetricsConfig,
        RandomForrestExecutionTimePredictorConfig,
        ReplicaConfig,
        SarathiSchedulerConfig,
        TraceRequestGeneratorConfig,
    )

    scratch = Path(settings["scratch_dir"])
    # Vidur's cache of predictions does not know which attention table they came from.
    digest = hashlib.sha256(attention_file.read_bytes()).hexdigest()[:12]
    return {
        "cluster_config": ClusterConfig(
            num_replicas=1,
            replica_config=ReplicaConfig(model_name=MODEL, device=DEVICE),
            replica_scheduler_config=SarathiSchedulerConfig(
                batch_size_cap=settings["batch_cap"],
                block_size=settings["block_size"],
                num_blocks=settings["kv_blocks"],
                chunk_size=settings["token_budget"],
            ),
        ),
        "request_generator_config": TraceRequestGeneratorConfig(max_tokens=settings["max_model_len"]),
        # One point of the grid that Vidur searches: the search costs minutes, and the loop only ever looks
        # the predictions up in a table.
        "execution_time_predictor_config": RandomForrestExecutionTimePredictorConfig(
            compute_input_file=str(profiling_folder(settings) / "mlp.csv"),
            attention_input_file=str(attention_file),
            num_estimators=[50],
            max_depth=[16],
            min_samples_split=[2],
            k_fold_cv_splits=2,
            num_training_job_threads=1,
            prediction_max_prefill_chunk_size=settings["token_budget"],
            prediction_max_batch_size=settings["batch_cap"],
            prediction_max_tokens_per_request=settings["max_model_len"],
        ),
        "metrics_config": MetricsConfig(
            write_metrics=settings["metrics"],
            enable_chrome_trace=False,
            store_plots=False,
            output_dir=str(scratch / "output"),
            cache_dir=str(scratch / f"predictions-{digest}"),
        ),
    }


def profiling_folder(settings: dict[str, Any]) -> Path:
    folder = Path(settings["vidur_dir"]) / "data" / "profiling" / "compute" / DEVICE / MODEL
    if not (folder / "mlp.csv").exists():
        sys.exit(f"this is no checkout of Vidur with its profiling data: there is no {folder / 'mlp.csv'}")
    return folder


def attention_table(settings: dict[str, Any]) -> tuple[Path, bool]:
    """Vidur's table of attention times, or a stand-in where it is missing; and whether it is one."""
    measured = profiling_folder(settings) / "attention.csv"
    if measured.exists() and not measured.read_bytes().startswith(GIT_LFS_POINTER):
        return measured, False
    stand_in = Path(settings["scratch_dir"]) / "attention_stand_in.csv"
    rows = list(stand_in_rows(settings))
    with stand_in.open("w", encoding="ascii", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return stand_in, True


def stand_in_rows(settings: dict[str, Any]) -> Iterator[dict[str, float]]:
    """Attention times of one layer in ms, by what bounds each: arithmetic in prefill, memory in decode."""
    query_width, kv_width = 4096, 1024
    flops_per_ms, bytes_per_ms, launch_ms = 156e9, 1.6e9, 0.01  # half and four fifths of an A100's peak
    bytes_per_token = 2 * 2 * kv_width
    powers = [2**power for power in range(14)]

    def row(batch: int, chunk: int, context: int) -> dict[str, float]:
        flops = 4 * query_width * chunk * (context + chunk / 2)
        read_bytes = 0 if chunk else batch * context * bytes_per_token
        return {
            "n_embd": query_width,
            "n_q_head": 32,
            "n_kv_head": 8,
            "block_size": settings["block_size"],
            "num_tensor_parallel_workers": 1,
            "batch_size": batch,
            "prefill_chunk_size": chunk,
            "kv_cache_size": context,
            "time_stats.attn_prefill.median": launch_ms + flops / flops_per_ms,
            "time_stats.attn_decode.median": launch_ms + read_bytes / bytes_per_ms,
            "time_stats.attn_kv_cache_save.median": launch_ms
            + max(batch, chunk) * bytes_per_token / bytes_per_ms,
        }

    for context in range(0, settings["max_model_len"] + 1, 512):
        for power in powers:
            if power <= 2 * settings["token_budget"]:
                yield row(1, power, context)
            if power <= 2 * settings["batch_cap"]:
                yield row(power, 0, context)


def versions() -> dict[str, str]:
    import numpy
    import sklearn

    return {
        "python": sys.version.split()[0],
        "numpy": numpy.__version__,
        "scikit-learn": sklearn.__version__,
    }


if __name__ == "__main__":
    main()
