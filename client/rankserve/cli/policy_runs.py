"""The same workload under several policies, each on a real server process of its own."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO

from rankserve.client import AsyncSchedulerClient
from rankserve.client.load import Arrivals, LoadOptions, run_load
from rankserve.progress import track
from rankserve.records.results import Run
from rankserve.records.workload import WorkloadRecord

_RANKSERVE = (sys.executable, "-c", "from rankserve.cli.main import app; app()")
_STOP_TIMEOUT_S = 60.0
# A command that measures must end even if a server hangs.
_RUN_TIMEOUT_S = 1800.0


class ServerProcessError(RuntimeError):
    """A server process did not start, or did not end as it should. The message holds what it logged last."""


def run_policies(
    policies: Sequence[str],
    workload: Sequence[WorkloadRecord],
    arrivals: Arrivals,
    server_options: Mapping[str, object],
    *,
    workload_name: str,
) -> list[Run]:
    """Runs the workload once for each policy, one after the other, and returns the runs in that order.

    Args:
        policies: names, as `rankserve serve --policy` takes them.
        workload: replayed with its recorded lengths.
        arrivals: the same for every policy.
        server_options: further options of `rankserve serve`, e.g. ``{"max_sequences": 32}``.
        workload_name: for the record.

    Raises:
        ServerProcessError: a server did not start or did not exit with status 0.
    """
    options = LoadOptions(workload_name=workload_name, total_timeout_s=_RUN_TIMEOUT_S)

    async def send(address: str) -> Run:
        async with AsyncSchedulerClient(address) as client:
            return await run_load(client, workload, arrivals, options)

    runs = []
    for policy in track(policies, "all policies", "policies"):
        with running_server({**server_options, "policy": policy, "replay": True}) as address:
            runs.append(asyncio.run(send(address)))
    return runs


@contextmanager
def running_server(options: Mapping[str, object], program: Sequence[str] = _RANKSERVE) -> Iterator[str]:
    """A `rankserve serve` process on a free port of loopback, stopped with SIGTERM at the end.

    Args:
        options: of the command, with underscores; None and False leave one out.
        program: that stands for `rankserve`.

    Yields:
        Its address, "127.0.0.1:PORT".

    Raises:
        ServerProcessError: it did not start or did not exit with status 0.
    """
    command = [*program, "serve", "--host", "127.0.0.1", "--port", "0", "--json"]
    for name, value in options.items():
        if value is not None and value is not False:
            command.append("--" + name.replace("_", "-"))
            command += [] if value is True else [str(value)]
    with tempfile.TemporaryFile("w+") as log:
        # What is measured must not depend on settings that somebody's environment holds for another server.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RANKSERVE_")}
        # One thread of BLAS and of the ranker: the load generator needs the other core.
        environment["OMP_NUM_THREADS"] = "1"
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment, start_new_session=True
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise ServerProcessError(f"the server did not start:\n{_tail(log)}")
            yield json.loads(line)["address"]
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                status = process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                status = process.wait()
        if status != 0:
            raise ServerProcessError(f"the server exited with status {status}:\n{_tail(log)}")


def _tail(log: IO[str]) -> str:
    log.seek(0)
    return "".join(log.readlines()[-20:]).strip()
