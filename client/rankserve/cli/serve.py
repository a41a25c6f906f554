"""`rankserve serve`: the gRPC server."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from rankserve.cli.extras import needs_extra


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 50051,
    policy: Annotated[
        str,
        typer.Option(
            help="Who goes first: bounded_ranking (shortest expected answer, but nobody waits much longer"
            " than under FCFS), ranking (without that bound), cost_aware (least expected KV cache use),"
            " classification, aged_ranking or hrrn (expected length against the wait), mlfq (learns by"
            " running), edf (deadlines), fcfs; sjf and srtf (oracles, for replays)."
        ),
    ] = "bounded_ranking",
    ageing_tokens_per_s: Annotated[
        float,
        typer.Option(help="aged_ranking: predicted tokens that one second of waiting makes up for."),
    ] = 10.0,
    max_wait_ms: Annotated[
        int | None,
        typer.Option(
            help="Starvation bound: a request that waited this long goes before all of its priority."
        ),
    ] = None,
    starvation_threshold_steps: Annotated[
        int, typer.Option(help="The paper's bound: promote after this many LLM steps unscheduled; 0 = off.")
    ] = 0,
    starvation_quantum_steps: Annotated[
        int, typer.Option(help="Steps for which a promoted request is protected from eviction.")
    ] = 10,
    fair_share: Annotated[
        bool,
        typer.Option(help="Tenants take turns by the tokens they were served; without, they compete."),
    ] = True,
    preemption: Annotated[
        str,
        typer.Option(
            help="Evict a running request for a waiting one that the policy puts far enough ahead: off,"
            " recompute (its KV cache is lost and computed again) or swap (kept on the host). Running out"
            " of KV blocks evicts in any case."
        ),
    ] = "off",
    preemption_margin: Annotated[
        float,
        typer.Option(help="How many times its cost an eviction must gain; higher means fewer evictions."),
    ] = 1.0,
    kv_reservation: Annotated[
        str,
        typer.Option(
            help="KV blocks set aside when a request starts: none, predicted (the answer's expected 90th"
            " percentile) or max (max_tokens). More means fewer evictions and smaller batches."
        ),
    ] = "none",
    repository: Annotated[
        Path | None, typer.Option(help="Folder of ranker versions; default: the ranker that ships with us.")
    ] = None,
    ranker: Annotated[
        str | None, typer.Option(help="Ranker name; default: the repository's active version.")
    ] = None,
    ranker_version: Annotated[int | None, typer.Option(help="Its version; default: the newest.")] = None,
    ranker_threads: Annotated[int, typer.Option(help="CPU threads of the ranker.")] = 1,
    ranker_timeout_ms: Annotated[
        float, typer.Option(help="A request not scored by then gets a neutral score.")
    ] = 10_000,
    ranker_provider: Annotated[
        str, typer.Option(help="ONNX Runtime provider, e.g. CUDAExecutionProvider; refused if not to be had.")
    ] = "CPUExecutionProvider",
    engine: Annotated[str, typer.Option(help="The engine to drive.")] = "simulated",
    profile: Annotated[
        str,
        typer.Option(
            help="Simulated LLM: a100-llama3-8b (default), h100-llama3-8b, a100-llama3-70b-tp4,"
            " h100-llama3-70b-tp4."
        ),
    ] = "",
    max_sequences: Annotated[
        int | None, typer.Option(help="Batch cap in sequences; default: the profile's.")
    ] = None,
    max_batched_tokens: Annotated[
        int | None, typer.Option(help="Batch cap in tokens for one step; default: the profile's.")
    ] = None,
    kv_blocks: Annotated[
        int | None, typer.Option(help="KV blocks of 16 tokens; default: the profile's.")
    ] = None,
    time_scale: Annotated[
        float, typer.Option(help="Simulated LLM: how many of its seconds pass in one of ours.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of the simulated LLM's answer lengths.")] = 0,
    replay: Annotated[
        bool, typer.Option(help="Accept recorded answer lengths (replay_* fields) from clients.")
    ] = False,
    max_waiting: Annotated[int, typer.Option(help="Most requests waiting; more are refused.")] = 10_000,
    slow_client_s: Annotated[
        float, typer.Option(help="Seconds after which a stream is ended whose client reads nothing.")
    ] = 30.0,
    retain_results: Annotated[
        int, typer.Option(help="Ended requests that are kept for later questions.")
    ] = 5000,
    max_prompt_bytes: Annotated[int, typer.Option(help="Longest prompt in bytes.")] = 256 << 10,
    journal: Annotated[
        Path | None,
        typer.Option(
            help="SQLite file that records every accepted request, so that a restart goes on with it;"
            " default: memory only."
        ),
    ] = None,
    default_max_tokens: Annotated[
        int, typer.Option(help="Longest answer of requests that set no max_tokens.")
    ] = 1024,
    drain_timeout_s: Annotated[
        float, typer.Option(help="On SIGTERM, how long running requests may take to finish.")
    ] = 30.0,
    drain_notice_s: Annotated[
        float,
        typer.Option(help="On SIGTERM, seconds of NOT_SERVING health before requests are refused."),
    ] = 0.0,
    token_file: Annotated[
        Path | None,
        typer.Option(
            help="File with the token that callers must send; a .toml file holds several, with roles, tenants"
            " and quotas. Read again when it changes."
        ),
    ] = None,
    allow_unauthenticated: Annotated[
        bool, typer.Option(help="Listen beyond loopback without a token.")
    ] = False,
    tls_certificate: Annotated[
        Path | None, typer.Option(help="PEM file: certificate chain for TLS. Read again when it changes.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file: the certificate's key.")] = None,
    tls_client_ca: Annotated[
        Path | None,
        typer.Option(help="PEM file: CAs one of which must have signed each client's certificate."),
    ] = None,
    reflection: Annotated[
        str, typer.Option(help="Who may ask for the API's description: admin, all (with any token) or off.")
    ] = "admin",
    max_open_streams: Annotated[int, typer.Option(help="Most streaming calls open at once.")] = 8_000,
    max_open_streams_per_caller: Annotated[
        int, typer.Option(help="Most of them open with one token.")
    ] = 4_000,
    max_metadata_bytes: Annotated[int, typer.Option(help="Most metadata a call may carry.")] = 16 << 10,
    json_output: Annotated[
        bool, typer.Option("--json", help="Once listening, print one JSON object on stdout.")
    ] = False,
) -> None:
    """Serve the gRPC API: rank requests by predicted output length and run them on an LLM.

    Stops on SIGTERM or Ctrl-C after its running requests have finished.
    """
    options = {key: value for key, value in locals().items() if key != "json_output"}
    # Else gRPC prints a line, in its own format, for every TLS handshake that fails. Read as it is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    with needs_extra("server"):
        import asyncio

        from pydantic import ValidationError

        from rankserve.cli.logs import log_to_stderr
        from rankserve.server.app import Listening
        from rankserve.server.app import serve as run_server
        from rankserve.server.ranking.worker import is_scoring
        from rankserve.server.settings import ServerSettings

    def on_listening(listening: Listening) -> None:
        if json_output:
            print(
                json.dumps(
                    {
                        "address": listening.address,
                        "policy": listening.policy,
                        "engine": listening.engine,
                        "ranker_version": listening.ranker_version,
                    }
                )
            )
        else:
            print(
                f"rankserve listens on {listening.address}: policy {listening.policy},"
                f" engine {listening.engine}, ranker {listening.ranker_version}. Ctrl-C stops it."
            )
        sys.stdout.flush()

    log_to_stderr()
    try:
        asyncio.run(run_server(ServerSettings(**options), on_listening))
    except ValidationError as error:
        first = error.errors()[0]
        option = "--" + "-".join(str(part) for part in first["loc"]).replace("_", "-")
        print(f"rankserve serve: {option}: {first['msg']}", file=sys.stderr)
        raise SystemExit(2) from None
    except (ValueError, OSError) as error:
        print(f"rankserve serve: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    if is_scoring():
        # The interpreter's own exit would abort the process under a model that still runs.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
