"""The address of a server: parsed, so that a malformed one is refused before anything is sent.

Knows gRPC's naming syntax; opens no connection.
"""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from convlens.client.errors import InvalidArgument

EXAMPLE: Final = "localhost:50051"
_ALLOWED: Final = f"HOST:PORT such as {EXAMPLE} or [::1]:50051, dns:///HOST:PORT, ipv4:, ipv6:, unix:PATH"
_SOCKETS: Final = ("unix", "unix-abstract")
_LOOPBACK: Final = {"localhost", "127.0.0.1", "::1"}


@dataclass(frozen=True, slots=True)
class Address:
    """A well-formed address."""

    target: str
    """The address as it was given, which gRPC understands."""
    host: str
    """Host name or IP address; empty for a Unix socket."""

    @property
    def is_local(self) -> bool:
        """True if nothing leaves this machine."""
        return not self.host or self.host.lower() in _LOOPBACK


def parse_address(target: Any) -> Address:
    """Parse an address. InvalidArgument says what is wrong and how to write it."""
    if not isinstance(target, str):
        raise _refused(target, f"is a {type(target).__name__}, not a string")
    scheme, colon, rest = target.partition(":")
    if colon and scheme in _SOCKETS:
        if not rest.strip("/"):
            raise _refused(target, "names no socket")
        return Address(target, "")
    if not target.strip() or re.search(r"\s", target):
        raise _refused(target, "has spaces" if target.strip() else "is empty")
    if colon and scheme == "dns":
        authority = re.match(r"//[^/]*/", rest)
        return Address(target, _host(target, rest[authority.end() :] if authority else rest))
    if colon and scheme in {"ipv4", "ipv6"}:
        return Address(target, min(_host(target, part) for part in rest.split(",")))
    if "://" in target:
        tls = ", and tls=True (--tls) for TLS" if scheme.lower() in {"https", "grpcs"} else ""
        location = _network_location(target)
        remedy = f"; give {location} alone{tls}" if location else tls
        raise _refused(target, f"begins with {scheme}://, but this is no URL{remedy}")
    return Address(target, _host(target, target))


def _host(target: str, place: str) -> str:
    """Return the host of HOST:PORT."""
    if any(sign in place for sign in "/?#@"):
        raise _refused(target, "has more than a host and a port")
    if place.startswith("["):
        host, closed, port = place[1:].partition("]")
        if not closed or not _is_ipv6(host):
            raise _refused(target, "has no IPv6 address in its brackets")
    elif place.count(":") > 1:
        if _is_ipv6(place):
            raise _refused(target, f"is an IPv6 address, which needs brackets and a port: [{place}]:50051")
        address, _, digits = place.rpartition(":")
        raise _refused(target, f"has several colons; an IPv6 address needs brackets: [{address}]:{digits}")
    else:
        host, _, port = place.partition(":")
        port = ":" + port if ":" in place else ""
        if not host:
            raise _refused(target, "has no host")
        if not re.fullmatch(r"[\w.-]+", host):
            raise _refused(target, f"has the host {host!r}, which no host can be called")
    if not port:
        raise _refused(target, f"has no port; the server's own is 50051: {place}:50051")
    if not re.fullmatch(r":[0-9]{1,5}", port) or not 1 <= int(port[1:]) <= 65535:
        raise _refused(target, f"has the port {port.removeprefix(':')!r}; a port is a number in 1…65535")
    return host


def _is_ipv6(text: str) -> bool:
    try:
        return bool(ipaddress.IPv6Address(text))
    except ValueError:
        return False


def _network_location(url: str) -> str:
    """Return HOST:PORT of a URL, as far as it has them."""
    try:
        return urlsplit(url).netloc.rpartition("@")[2]
    except ValueError:
        return ""


def _refused(target: Any, why: str) -> InvalidArgument:
    return InvalidArgument(f"the server's address {target!r} {why}; allowed: {_ALLOWED}", field="target")


def proxy_in_environment(host: str) -> tuple[str, str] | None:
    """The proxy that gRPC takes to `host`: the variable that names it, and its own HOST:PORT. None where it takes none.

    gRPC reads grpc_proxy, https_proxy and http_proxy in lower case, and no_grpc_proxy or no_proxy: ends of host names,
    and networks such as 10.0.0.0/8.
    """
    variable = next((name for name in ("grpc_proxy", "https_proxy", "http_proxy") if os.environ.get(name)), "")
    proxy = os.environ.get(variable, "")
    location = _network_location(proxy)
    if not location or not proxy.lower().startswith("http://"):
        return None
    excluded = next((os.environ[name] for name in ("no_grpc_proxy", "no_proxy") if name in os.environ), "")
    if any(_covers(entry.strip(), host) for entry in excluded.split(",")):
        return None
    return variable, location


def _covers(entry: str, host: str) -> bool:
    """Return True if an entry of no_proxy covers `host`."""
    if not entry:
        return False
    if host.lower().endswith(entry.lower()):
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False
