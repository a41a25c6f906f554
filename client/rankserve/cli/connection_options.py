"""How commands reach a server: the same options for all of them."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rankserve.client import TlsConfig

_OPTIONS: dict[str, tuple[Any, object]] = {
    "target": (
        Annotated[
            str,
            typer.Option(metavar="HOST:PORT", help="The server; several replicas with commas between."),
        ],
        "127.0.0.1:50051",
    ),
    "token_file": (
        Annotated[
            Path | None, typer.Option(exists=True, dir_okay=False, help="File with the server's token.")
        ],
        None,
    ),
    "tls_ca": (
        Annotated[
            Path | None,
            typer.Option(exists=True, dir_okay=False, help="PEM file of whom to trust: speak TLS."),
        ],
        None,
    ),
    "tls_certificate": (
        Annotated[
            Path | None,
            typer.Option(exists=True, dir_okay=False, help="PEM file of this client's own, for mutual TLS."),
        ],
        None,
    ),
    "tls_key": (
        Annotated[
            Path | None, typer.Option(exists=True, dir_okay=False, help="PEM file with that one's key.")
        ],
        None,
    ),
    "tls_server_name": (
        Annotated[
            str | None, typer.Option(help="The name in the server's certificate, if not the target's.")
        ],
        None,
    ),
}


@dataclass(slots=True, frozen=True)
class Connection:
    """Which server, and how to reach it.

    Attributes:
        target: one address, or several.
        token: sent along; None sends none.
        tls: None is plain text.
    """

    target: str | list[str]
    token: str | None = field(repr=False)
    tls: "TlsConfig | None" = field(repr=False)


def with_connection_options(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command that takes ``connect`` the options by which it is made.

    ``connect()`` reads the files that the options name. It raises OSError if one cannot be read, ValueError
    if the options contradict each other.
    """

    def with_options(**values: Any) -> None:
        given = {name: values.pop(name) for name in _OPTIONS}
        command(connect=lambda: _connection(**given), **values)

    signature = inspect.signature(command)
    own = [parameter for name, parameter in signature.parameters.items() if name != "connect"]
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in _OPTIONS.items()
    ]
    parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in (*own, *more)]
    with_options.__dict__["__signature__"] = signature.replace(parameters=parameters)
    with_options.__name__, with_options.__doc__ = command.__name__, command.__doc__
    return with_options


def _connection(
    target: str,
    token_file: Path | None,
    tls_ca: Path | None,
    tls_certificate: Path | None,
    tls_key: Path | None,
    tls_server_name: str | None,
) -> Connection:
    from rankserve.client import TlsConfig

    addresses = [address.strip() for address in target.split(",") if address.strip()]
    token = None if token_file is None else token_file.read_text(encoding="utf-8").strip()
    tls = None
    if tls_ca is not None:
        tls = TlsConfig.from_files(tls_ca, tls_certificate, tls_key, server_name=tls_server_name)
    elif tls_certificate or tls_key or tls_server_name:
        raise ValueError("--tls-certificate, --tls-key and --tls-server-name need --tls-ca")
    return Connection(addresses if len(addresses) > 1 else target, token, tls)
