"""Where a client's calls go: one server, or several replicas of one."""

import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass

Targets = str | Sequence[str]


@dataclass(slots=True, frozen=True)
class Target:
    """A gRPC name, and what is known of the servers behind it.

    Attributes:
        text: as people wrote it.
        name: what gRPC resolves.
        addresses: of each server; one element, ``name`` itself, where gRPC alone knows them.
        balanced: whether calls are spread over several servers, the healthy ones.
        host: the name that all addresses have in common, for TLS; empty if there is none.
    """

    text: str
    name: str
    addresses: tuple[str, ...]
    balanced: bool
    host: str = ""

    @classmethod
    def parse(cls, target: Targets) -> "Target":
        """Takes "host:port", any gRPC name, or several "host:port".

        Raises:
            ValueError: no address, or one that is not "host:port".
            OSError: the host of one of several addresses is not known.
        """
        if isinstance(target, str):
            return cls(target, target, (target,), balanced=target.startswith("dns:"))
        addresses = tuple(dict.fromkeys(target))
        if not addresses:
            raise ValueError("a client needs at least one address, such as 'localhost:50051'")
        if len(addresses) == 1:
            return cls.parse(addresses[0])
        hosts = {_split(address)[0] for address in addresses}
        # gRPC resolves a list only if it holds addresses of one kind, and no names.
        resolved = [_resolve(address) for address in addresses]
        versions = {version for version, _ in resolved}
        if len(versions) > 1:
            raise ValueError(f"addresses must be all IPv4 or all IPv6, got {', '.join(addresses)}")
        name = f"ipv{versions.pop()}:" + ",".join(address for _, address in resolved)
        host = hosts.pop() if len(hosts) == 1 else ""
        return cls(", ".join(addresses), name, addresses, balanced=True, host=host)


def _split(address: str) -> tuple[str, int]:
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or "/" in host or not port.isdigit():
        raise ValueError(f"one of several addresses must be 'host:port', got {address!r}")
    return host, int(port)


def _resolve(address: str) -> tuple[int, str]:
    """The IP version and the numeric address. IPv4 is preferred, as where both exist servers listen there."""
    host, port = _split(address)
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        found = {family: place[0] for family, _, _, _, place in socket.getaddrinfo(host, port)}
        ip = ipaddress.ip_address(found.get(socket.AF_INET) or found[socket.AF_INET6])
    return ip.version, f"{ip}:{port}" if ip.version == 4 else f"[{ip}]:{port}"
