"""`rankserve serve`: the gRPC server."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from rankserve.cli.extras import needs_extra
from rankserve.cli.serve_options import with_option_for_each_setting


@with_option_for_each_setting
def serve(
    *,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="TOML file of settings, named as the options with _ for -. Also RANKSERVE_CONFIG. An option"
            " goes before a variable such as RANKSERVE_MAX_WAITING, and that before the file.",
        ),
    ] = None,
    print_config: Annotated[
        bool,
        typer.Option(
            "--print-config", help="Print the settings, and where each comes from, as such a file; end."
        ),
    ] = False,
    json_output: Annotated[
        bool, typer.Option("--json", help="Once listening, print one JSON object on stdout.")
    ] = False,
    **options: str | bool | None,
) -> None:
    """Serve the gRPC API: rank requests by predicted output length and run them on an LLM.

    Stops on SIGTERM or Ctrl-C after its running requests have finished.
    """
    # Else gRPC prints a line, in its own format, for every TLS handshake that fails. Read as it is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    # Some of its builds report usage to their maker, over the network.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    with needs_extra("server"):
        import asyncio

        import structlog

        from rankserve.cli.logs import log_to_stderr
        from rankserve.server.app import Listening
        from rankserve.server.app import serve as run_server
        from rankserve.server.ranking.worker import is_scoring
        from rankserve.server.settings_sources import load_settings, to_toml

    def on_listening(listening: Listening) -> None:
        structlog.get_logger(__name__).info(
            "listening",
            address=listening.address,
            http_address=listening.http_address,
            policy=listening.policy,
            engine=listening.engine,
            ranker_version=listening.ranker_version,
            settings=loaded.settings.changed(),
        )
        if json_output:
            print(
                json.dumps(
                    {
                        "address": listening.address,
                        "http_address": listening.http_address,
                        "policy": listening.policy,
                        "engine": listening.engine,
                        "ranker_version": listening.ranker_version,
                        "operations_address": listening.operations_address,
                    }
                )
            )
        else:
            http = f" and http://{listening.http_address}/v1" if listening.http_address else ""
            print(
                f"rankserve listens on {listening.address}{http}: policy {listening.policy},"
                f" engine {listening.engine}, ranker {listening.ranker_version}. Ctrl-C stops it."
            )
            if listening.operations_address:
                print(f"Live page and metrics: http://{listening.operations_address}/")
        sys.stdout.flush()

    try:
        loaded = load_settings({name: value for name, value in options.items() if value is not None}, config)
        if print_config:
            sys.stdout.write(to_toml(loaded))
            return
        with log_to_stderr(loaded.settings.log_format, loaded.settings.log_level):
            asyncio.run(run_server(loaded.settings, on_listening))
    except (ValueError, OSError) as error:
        for line in str(error).splitlines():
            print(f"rankserve serve: {line}", file=sys.stderr)
        raise SystemExit(2) from None
    if is_scoring():
        # The interpreter's own exit would abort the process under a model that still runs.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
