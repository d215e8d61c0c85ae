"""Why a server was not reached: gRPC's text for a failed connection (1.74 to 1.85) as a sentence with a remedy."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, NamedTuple

import grpc

from convlens.client.address import Address, proxy_in_environment
from convlens.client.errors import Unavailable

REASON: Final = "SERVER_UNREACHABLE"
NO_REPLY: Final = "Deadline Exceeded"
"""gRPC's text for a call whose time ran out before a connection was made or refused."""
_BEFORE_A_CONNECTION: Final = (
    "failed to connect to all addresses",
    "errors resolving",
    "DNS resolution failed",
    "empty address list",
)
"""How gRPC's texts begin if no connection was made."""


def never_connected(error: grpc.RpcError) -> bool:
    """Return True for a call that failed because no connection could be made."""
    details = error.details() or ""
    return error.code() is grpc.StatusCode.UNAVAILABLE and details.startswith(_BEFORE_A_CONNECTION)


class Cause(NamedTuple):
    """Why there is no connection."""

    what: str
    remedy: str = ""


_CAUSES: Final = (
    (
        r"Connection refused",
        Cause("connection refused", "is the server running (`convlens up`), and on this port?"),
    ),
    (r"No such file or directory", Cause("there is no such socket", "is the server running?")),
    (
        r"DNS query cancelled|imeout while contacting DNS",
        Cause("no answer from the DNS servers about {host}", "is the network up?"),
    ),
    (
        r"errors resolving|DNS resolution failed|empty address list",
        Cause("the name {host} does not resolve", "is it spelt rightly?"),
    ),
    (
        r"No route to host|etwork is unreachable",
        Cause("no route to {host}", "is it the right address, and the network up?"),
    ),
    (
        rf"timed out|Endpoint closing|handshaker shutdown|{NO_REPLY}",
        Cause("no reply", "a firewall may drop what is sent, or what listens there hangs"),
    ),
    (r"proxy returned response code", Cause("the proxy refused to connect", "does it allow this port?")),
    (r"WRONG_VERSION_NUMBER", Cause("what listens there speaks no TLS", "leave out tls (--tls, --ca, --cert)")),
    (
        r"http1|frame type (79|80)\b|missing selected ALPN",
        Cause("a web server listens there, not a gRPC server", "is this the right port?"),
    ),
    (r"Failed parsing HTTP/2", Cause("what listens there is no gRPC server", "is this the right port?")),
)
_ENDED: Final = r"Socket closed|Connection reset|Broken pipe"
_HANDSHAKE: Final = r"Unwrap failed|[Hh]andshake"


@dataclass(frozen=True, slots=True)
class Caller:
    """How a client connects, which decides how a failure is explained."""

    address: Address
    tls: bool = False
    certificate: bool = False
    """True if the client presents a certificate of its own."""

    def cause(self, details: str) -> Cause:
        """Return why there is no connection, given gRPC's `details`."""
        for pattern, cause in _CAUSES:
            if re.search(pattern, details):
                return Cause(cause.what.format(host=self.address.host), cause.remedy)
        if self.tls and re.search(f"{_ENDED}|{_HANDSHAKE}", details):
            if self.certificate:
                return Cause("the server ended the TLS handshake", "it may not trust this client's certificate")
            return Cause(
                "the server ended the TLS handshake",
                "it may demand a certificate of this client (tls=TLS(ca, certificate, key); --cert and --key)",
            )
        if re.search(_ENDED, details):
            return Cause("the connection was closed at once", "the server may want TLS (tls=True, --tls)")
        return Cause(details)

    def unreachable(self, details: str, seconds: float, request_id: str = "") -> Unavailable:
        """Return the error of a server that was not reached within `seconds`, given gRPC's `details`."""
        parts = [part for part in self.cause(details) if part]
        if not self.address.is_local and (proxy := proxy_in_environment(self.address.host)):
            parts.append(
                f"this went through a proxy named in the environment, {proxy[0]}={proxy[1]} (no_proxy="
                f"{self.address.host} leaves it out)"
            )
        message = f"no Convlens server answers at {self.address.target}, after {seconds:.2g} s: {'; '.join(parts)}"
        return Unavailable(message, reason=REASON, request_id=request_id)
