"""`rankserve admin`: look at a running server and operate it."""

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rankserve.cli.connection_options import Connection, with_connection_options

if TYPE_CHECKING:
    from rankserve.client import SchedulerClient

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON objects, one a line.")]
Connect = Callable[[], Connection]

admin_app = typer.Typer(
    help="Look at a running server and operate it. No command drops a request. Where there are tokens, one"
    " with the role admin is needed; observe will do for stats and requests.",
    no_args_is_help=True,
)


@admin_app.command()
@with_connection_options
def drain(connect: Connect, as_json: AsJson = False) -> None:
    """Accept no more requests and serve those there are; health says NOT_SERVING. `resume` takes it back."""
    with _client(connect) as client:
        live = client.drain()
    _tell(as_json, f"draining: no request is accepted, {live} are still to be served", live=live)


@admin_app.command()
@with_connection_options
def pause(connect: Connect, as_json: AsJson = False) -> None:
    """Accept requests and start none; those that run go on."""
    with _client(connect) as client:
        waiting = client.pause()
    _tell(as_json, f"paused: requests are accepted and none is started, {waiting} wait", waiting=waiting)


@admin_app.command()
@with_connection_options
def resume(connect: Connect, as_json: AsJson = False) -> None:
    """End `drain` and `pause`."""
    with _client(connect) as client:
        client.resume()
    _tell(as_json, "serving")


@admin_app.command()
@with_connection_options
def policy(
    connect: Connect,
    name: Annotated[str, typer.Argument(help="As `rankserve serve --policy` takes it.")],
    as_json: AsJson = False,
) -> None:
    """Order all that waits and all that comes by another policy."""
    with _client(connect) as client:
        change = client.set_policy(name)
    text = f"{name} instead of {change.previous}; {change.reordered} waiting requests were put in order"
    _tell(as_json, text, policy=name, previous=change.previous, reordered=change.reordered)


@admin_app.command()
@with_connection_options
def stats(
    connect: Connect,
    watch: Annotated[bool, typer.Option("--watch", help="Again every second, until Ctrl-C.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the queue, the batch, the ranker and all counters."""
    with _client(connect) as client:
        for counters in client.watch_stats() if watch else [client.stats()]:
            values = _plain(counters)
            if as_json:
                print(json.dumps(values), flush=True)
            else:
                width = max(map(len, values))
                print("\n".join(f"{name:<{width}}  {_shown(value)}" for name, value in values.items()))
                print(end="\n" if watch else "", flush=True)


@admin_app.command()
@with_connection_options
def requests(
    connect: Connect,
    state: Annotated[
        list[str] | None,
        typer.Option(help="Only those that are accepted, waiting, running, finished or failed; repeatable."),
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="Only those of this tenant.")] = None,
    most: Annotated[int, typer.Option("--most", "-n", min=1, help="Show no more than so many.")] = 1000,
    as_json: AsJson = False,
) -> None:
    """List requests, live and recently ended, in the order of their acceptance. Never their prompts."""
    from rankserve.client import RequestState

    states = {each.value: each for each in RequestState if each is not RequestState.UNSPECIFIED}
    if unknown := set(state or ()) - states.keys():
        raise typer.BadParameter(f"no state {', '.join(sorted(unknown))}; there are {', '.join(states)}")
    if not as_json:
        print(f"{'accepted (UTC)':<21}{'state':<10}{'priority':>8}{'in':>7}{'out':>7}{'score':>9}  request")
    with _client(connect) as client:
        listed = client.list_requests(states=[states[name] for name in state or ()], tenant=tenant)
        for _, request in zip(range(most), listed, strict=False):
            if as_json:
                print(json.dumps(_plain(request)))
                continue
            print(
                f"{request.accept_time:%Y-%m-%d %H:%M:%S}  {request.state:<10}{request.priority:>8}"
                f"{request.input_tokens:>7}{request.output_tokens:>7}{request.score:>9.3f}"
                f"  {request.request_id}{f' ({request.tenant})' if request.tenant else ''}"
            )


@contextmanager
def _client(connect: Connect) -> "Iterator[SchedulerClient]":
    """A client of the server that the options name. What goes wrong ends the command with status 1."""
    from rankserve.client import RankServeError, SchedulerClient

    try:
        connection = connect()
        with SchedulerClient(connection.target, tls=connection.tls, token=connection.token) as client:
            yield client
    except (RankServeError, ValueError, OSError) as error:
        print(f"rankserve admin: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def _tell(as_json: bool, text: str, **values: object) -> None:
    print(json.dumps(values) if as_json else text)


def _plain(value: Any) -> Any:
    """A value as JSON takes it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: _plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return "; ".join(", ".join(f"{key} {_shown(one)}" for key, one in each.items()) for each in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
