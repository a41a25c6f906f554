"""`rankserve fake-engine`: an engine without a model, for tests of what calls one."""

import json
import sys
from typing import Annotated

import typer

from rankserve.cli.extras import needs_extra


def fake_engine(
    *,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = 8000,
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Name it serves; repeat for more names. Default: fake-model."),
    ] = None,
    max_num_seqs: Annotated[int, typer.Option(help="Most requests that run at a time.")] = 8,
    ttft_s: Annotated[float, typer.Option(help="Seconds from a request's start to its first token.")] = 0.02,
    itl_s: Annotated[float, typer.Option(help="Seconds between two tokens.")] = 0.005,
    itl_per_sequence_s: Annotated[
        float, typer.Option(help="Seconds that each running request adds between two tokens.")
    ] = 0.0,
    tokens_per_chunk: Annotated[int, typer.Option(help="Tokens in a streamed chunk.")] = 1,
    kv_tokens: Annotated[int, typer.Option(help="Tokens that the KV cache holds.")] = 32768,
    max_model_len: Annotated[int, typer.Option(help="Most tokens of a prompt and its answer.")] = 4096,
    scheduling: Annotated[
        str, typer.Option(metavar="fcfs|priority", help="Who starts first; lower priorities are sooner.")
    ] = "fcfs",
    api_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="Key to ask for under /v1. Default: none.")
    ] = None,
    mean_output_tokens: Annotated[float, typer.Option(help="Mean length of answers, in words.")] = 100.0,
    sigma_output_tokens: Annotated[
        float, typer.Option(help="Standard deviation of its logarithm; 0 makes all equally long.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Of answers and faults.")] = 0,
    faults: Annotated[
        str,
        typer.Option(
            metavar="KIND=P,...",
            help="What goes wrong, and how probably for each request, e.g. error=0.1,cut=0.1. Kinds: error,"
            " overloaded, hang, cut, slow, wrong_usage, no_usage, error_event, garbage, no_done.",
        ),
    ] = "",
    json_output: Annotated[
        bool, typer.Option("--json", help="Once listening, print one JSON object on stdout.")
    ] = False,
) -> None:
    """Serve OpenAI's API as vLLM does, without a model, for tests of what calls an engine.

    Answers are words that tell where in the answer they are. Stops on SIGTERM or Ctrl-C.
    """
    with needs_extra("server"):
        import asyncio

        from rankserve.cli.logs import log_to_stderr
        from rankserve.server.engines.fake import FakeEngine, FakeEngineSettings
        from rankserve.server.engines.fake.faults import parse_probabilities
        from rankserve.server.engines.fake.serving import serve_until_signal
        from rankserve.server.engines.fake.settings import parse_scheduling

    def on_listening(engine: FakeEngine) -> None:
        models = engine.settings.models
        if json_output:
            print(json.dumps({"address": engine.address, "url": engine.base_url, "models": models}))
        else:
            print(f"fake engine listens on {engine.base_url}: {', '.join(models)}. Ctrl-C stops it.")
        sys.stdout.flush()

    try:
        settings = FakeEngineSettings(
            models=tuple(model or ("fake-model",)),
            host=host,
            port=port,
            max_num_seqs=max_num_seqs,
            ttft_s=ttft_s,
            itl_s=itl_s,
            itl_per_sequence_s=itl_per_sequence_s,
            tokens_per_chunk=tokens_per_chunk,
            kv_tokens=kv_tokens,
            max_model_len=max_model_len,
            scheduling=parse_scheduling(scheduling),
            api_key=api_key,
            mean_output_tokens=mean_output_tokens,
            sigma_output_tokens=sigma_output_tokens,
            seed=seed,
            faults=parse_probabilities(faults),
        )
        with log_to_stderr(log_level="warning"):
            asyncio.run(serve_until_signal(settings, on_listening))
    except (ValueError, OSError) as error:
        print(f"rankserve fake-engine: {error}", file=sys.stderr)
        raise SystemExit(2) from None
