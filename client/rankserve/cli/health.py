"""`rankserve health`: is a server ready? For container health checks, scripts and people."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import grpc

# In the order of grpc.health.v1.HealthCheckResponse.ServingStatus.
_STATUSES = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
_SERVING = 1


def health(
    address: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="The server's gRPC address.")
    ] = "127.0.0.1:50051",
    service: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Ask about one service, e.g. rankserve.v1.SchedulerService; default: all."
        ),
    ] = "",
    timeout_s: Annotated[
        float, typer.Option(min=0.001, help="Seconds until silence counts as failure.")
    ] = 3.0,
    tls_ca: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The server has TLS: PEM certificates of the authorities to trust."
        ),
    ] = None,
    tls_certificate: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="PEM certificate to show, where mutual TLS is asked for."),
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help="Its PEM key.")] = None,
    tls_server_name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name in the server's certificate; default: the address's."),
    ] = None,
) -> None:
    """Ask a server by the gRPC health protocol; exit status 0 if it is SERVING, else 1.

    Needs no token. A server that drains, or cannot record requests, answers NOT_SERVING.
    """
    import grpc
    from google.protobuf.message import DecodeError

    try:
        status = _ask(
            _channel(address, tls_ca, tls_certificate, tls_key, tls_server_name), service, timeout_s
        )
    except grpc.RpcError as error:
        print(f"rankserve health: {address}: {_reason(error)}", file=sys.stderr)
        raise SystemExit(1) from None
    except (OSError, ValueError, DecodeError) as error:
        print(f"rankserve health: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    print(_STATUSES[status] if status < len(_STATUSES) else status)
    if status != _SERVING:
        raise SystemExit(1)


def _channel(
    address: str, ca: Path | None, certificate: Path | None, key: Path | None, server_name: str | None
) -> "grpc.Channel":
    import grpc

    # Probes ask the host beside them; a proxy of the environment has no part in that.
    options: list[tuple[str, str | int]] = [("grpc.enable_http_proxy", 0)]
    if ca is None:
        if certificate or key or server_name:
            raise ValueError("--tls-certificate, --tls-key and --tls-server-name need --tls-ca")
        return grpc.insecure_channel(address, options)
    if (certificate is None) != (key is None):
        raise ValueError("--tls-certificate and --tls-key need each other")
    if server_name is not None:
        options.append(("grpc.ssl_target_name_override", server_name))
    credentials = grpc.ssl_channel_credentials(
        ca.read_bytes(),
        None if key is None else key.read_bytes(),
        None if certificate is None else certificate.read_bytes(),
    )
    return grpc.secure_channel(address, credentials, options)


def _ask(channel: "grpc.Channel", service: str, timeout_s: float) -> int:
    """The number of a ServingStatus.

    The messages of the health protocol are in a package that only servers need. Its request is one string and
    its response one enumeration, each field 1, as in these two.
    """
    from google.protobuf.wrappers_pb2 import StringValue, UInt32Value

    check = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=StringValue.SerializeToString,
        response_deserializer=UInt32Value.FromString,
    )
    with channel:
        return int(check(StringValue(value=service), timeout=timeout_s).value)


def _reason(error: "grpc.RpcError") -> str:
    import grpc

    code, details = (error.code(), error.details()) if isinstance(error, grpc.Call) else (None, str(error))
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return "no answer in time"
    return f"{code.name if code else 'failed'}: {details}"
