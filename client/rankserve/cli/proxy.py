"""`rankserve proxy`: sets priorities for an engine that has a priority queue."""

import json
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from rankserve.cli.extras import needs_extra


class ProxyPolicy(StrEnum):
    AGED_RANKING = "aged_ranking"
    RANKING = "ranking"
    FCFS = "fcfs"


class EnginePriority(StrEnum):
    LOWER_FIRST = "lower-first"
    HIGHER_FIRST = "higher-first"


def proxy(
    upstream: Annotated[
        str,
        typer.Option(
            metavar="URL", help="The engine's OpenAI-compatible API, with /v1 at its end or without."
        ),
    ],
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="PORT", help="Port to listen on; 0 takes a free one.")] = 8100,
    policy: Annotated[
        ProxyPolicy,
        typer.Option(help="By predicted length with a credit for waiting, by score alone, or by arrival."),
    ] = ProxyPolicy.AGED_RANKING,
    ageing_tokens_per_s: Annotated[
        float,
        typer.Option(
            metavar="TOKENS", help="aged_ranking: predicted tokens that a second of waiting makes up."
        ),
    ] = 10.0,
    engine_priority: Annotated[
        EnginePriority,
        typer.Option(
            help="Which priorities the engine serves first: vLLM low ones, SGLang by default high ones."
        ),
    ] = EnginePriority.LOWER_FIRST,
    trust_clients: Annotated[
        bool,
        typer.Option(
            "--trust-clients",
            help="Take clients' own `priority`, or `X-Vllm-Priority`, lower first, as bands that go before"
            " the policy's order. Otherwise it is overwritten.",
        ),
    ] = False,
    repository: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Ranker versions.", show_default="the bundled one")
    ] = None,
    ranker: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Ranker.", show_default="the active one, or the only one"),
    ] = None,
    ranker_version: Annotated[
        int | None,
        typer.Option(metavar="N", help="Its version.", show_default="the active one, or the newest"),
    ] = None,
    ranker_threads: Annotated[int, typer.Option(metavar="N", help="Threads of one run of the model.")] = 1,
    ranker_timeout_ms: Annotated[
        float, typer.Option(metavar="MS", help="After this a request goes on with a neutral score.")
    ] = 2000.0,
    max_body_bytes: Annotated[
        int, typer.Option(metavar="BYTES", help="Longest request; longer ones are answered 413.")
    ] = 32 << 20,
    body_timeout_s: Annotated[float, typer.Option(metavar="S", help="For a request to arrive.")] = 30.0,
    connect_timeout_s: Annotated[float, typer.Option(metavar="S", help="To reach the engine.")] = 5.0,
    read_timeout_s: Annotated[
        float, typer.Option(metavar="S", help="Longest silence of the engine.")
    ] = 600.0,
    drain_timeout_s: Annotated[
        float, typer.Option(metavar="S", help="How long running requests may go on after SIGTERM.")
    ] = 30.0,
    log_format: Annotated[str, typer.Option(metavar="auto|json|console", help="Of the log.")] = "auto",
    log_level: Annotated[str, typer.Option(metavar="LEVEL", help="debug, info, warning or error.")] = "info",
    json_output: Annotated[
        bool, typer.Option("--json", help="Once listening, print one JSON object on stdout.")
    ] = False,
) -> None:
    """Forward everything to an engine; set the priority of completions, chats, messages and responses.

    For vLLM with `--scheduling-policy priority`, SGLang with `--enable-priority-scheduling` and
    `--disable-priority-preemption`, or any engine that orders by an integer `priority`. It has no queue of
    its own. `/rankserve/health` and `/rankserve/metrics` are its own, all other paths the engine's.
    """
    # Some builds of ONNX Runtime report usage to their maker, over the network.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    with needs_extra("server"):
        import asyncio

        from pydantic import ValidationError

        from rankserve.cli.logs import log_to_stderr
        from rankserve.server.gateway.proxy import ProxyListening, ProxySettings, serve_proxy
        from rankserve.server.ranking.worker import is_scoring

    def on_listening(listening: ProxyListening) -> None:
        if json_output:
            print(
                json.dumps(
                    {
                        "address": listening.address,
                        "policy": listening.policy,
                        "ranker_version": listening.ranker_version,
                    }
                )
            )
        else:
            print(
                f"rankserve proxy listens on http://{listening.address}/v1: policy {listening.policy}, ranker"
                f" {listening.ranker_version or 'none'}, for {upstream}. Ctrl-C stops it."
            )
        sys.stdout.flush()

    try:
        settings = ProxySettings(
            upstream=upstream,
            host=host,
            port=port,
            policy=policy.value,
            ageing_tokens_per_s=ageing_tokens_per_s,
            engine_priority=engine_priority.value,
            trust_clients=trust_clients,
            repository=repository,
            ranker=ranker,
            ranker_version=ranker_version,
            ranker_threads=ranker_threads,
            ranker_timeout_ms=ranker_timeout_ms,
            max_body_bytes=max_body_bytes,
            body_timeout_s=body_timeout_s,
            connect_timeout_s=connect_timeout_s,
            read_timeout_s=read_timeout_s,
            drain_timeout_s=drain_timeout_s,
        )
        with log_to_stderr(log_format, log_level):
            asyncio.run(serve_proxy(settings, on_listening))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        print(f"rankserve proxy: --{str(first['loc'][0]).replace('_', '-')}: {first['msg']}", file=sys.stderr)
        raise SystemExit(2) from None
    except (ValueError, OSError) as error:
        print(f"rankserve proxy: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    if is_scoring():
        # The interpreter's own exit would abort the process under a model that still runs.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
