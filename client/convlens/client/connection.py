"""How a client reaches a server: address, TLS, token, channel options, the version check. Shared by both clients."""

from __future__ import annotations

import logging
import re
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.experimental

from convlens.client.address import parse_address
from convlens.client.errors import InvalidArgument
from convlens.client.timeouts import DEFAULT_CONNECT_TIMEOUT
from convlens.client.unreachable import Caller
from convlens.v1.conventions import REQUEST_BYTES_KEY, VERSION_KEY

log = logging.getLogger(__name__)

VERSION: Final = metadata.version("convlens-client")
ANNOUNCED_FROM: Final = 1 << 20
"""Bytes of a request."""
LONGEST_CONNECT: Final = 20.0
"""Seconds of one try to connect, at most; gRPC's own default."""


@dataclass(frozen=True, slots=True)
class TLS:
    """Certificates, as files in PEM."""

    ca: str | Path | None = None
    """Whom to trust; None: the system's authorities."""
    certificate: str | Path | None = None
    """The client's own, for mutual TLS."""
    key: str | Path | None = None
    """The key of `certificate`."""

    def credentials(self) -> grpc.ChannelCredentials:
        """As gRPC wants them. InvalidArgument names the file that is missing, unreadable, or not what it should be."""
        if (self.certificate is None) != (self.key is None):
            missing = "key" if self.key is None else "certificate"
            raise InvalidArgument("tls: a certificate and its key go together", field=f"tls.{missing}")
        ca, key, certificate = (_read(it, getattr(self, it)) for it in ("ca", "key", "certificate"))
        trial = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # gRPC itself would only fail at each handshake
        try:
            if ca is not None:
                trial.load_verify_locations(cadata=ca.decode())
        except (ssl.SSLError, ValueError) as error:
            raise InvalidArgument(f"tls.ca: {self.ca} holds no certificates in PEM: {error}", field="tls.ca") from None
        try:
            if self.certificate and self.key:
                trial.load_cert_chain(self.certificate, self.key, password="")
        except (ssl.SSLError, OSError) as error:
            raise InvalidArgument(
                f"tls: {self.certificate} and {self.key} are no certificate and its key in PEM: {error}",
                field="tls.certificate",
            ) from None
        return grpc.ssl_channel_credentials(ca, key, certificate)


def _read(name: str, path: str | Path | None) -> bytes | None:
    """A file of TLS; `name` is its field."""
    try:
        return Path(path).read_bytes() if path else None
    except OSError as error:
        raise InvalidArgument(f"tls.{name}: cannot read {path}: {error.strerror}", field=f"tls.{name}") from None


class Connection:
    """What channels are made from; it crosses forks and event loops."""

    def __init__(
        self,
        target: str,
        token: str | None,
        tls: TLS | bool | None,
        connect_timeout: float = DEFAULT_CONNECT_TIMEOUT,
    ) -> None:
        """InvalidArgument of the field target for an address that is none, of token or tls for what cannot be one."""
        address = parse_address(target)
        if token is not None and not (isinstance(token, str) and re.fullmatch("[!-~]*", token)):
            message = "the token has other characters than visible ASCII, such as a line's end; give it alone"
            raise InvalidArgument(message, field="token")
        if not isinstance(tls, TLS | bool | None):
            raise InvalidArgument(f"tls is {tls!r}; allowed: TLS(…), True, False, None", field="tls")
        self._tls = TLS() if tls is True else tls or None
        self.target = target
        self.caller = Caller(address, self._tls is not None, bool(self._tls and self._tls.certificate))
        self.connect_timeout = connect_timeout
        self.metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self.reached = False
        """True once the server has answered anything."""
        self.trouble = ""
        """Why calls are tried again, for people; empty while there is no reason."""
        self.longest_job: float | None = None
        """Seconds that the server lets a job take; None before it was asked."""
        if token and not tls and not address.is_local:
            log.warning("the token for %s travels in the clear: anyone on the way can read it; see TLS", target)
        connecting = int(1000 * min(connect_timeout, LONGEST_CONNECT))
        self._options: list[tuple[str, Any]] = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.keepalive_time_ms", 30_000),  # the server allows one in 20 s; a dead connection shows within 40
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.http2.ping_timeout_ms", 10_000),  # or gRPC waits for a minute, whatever keepalive_timeout_ms says
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", 2_000),
            ("grpc.min_reconnect_backoff_ms", connecting),  # which is how long gRPC waits for a connection
            ("grpc.dns_ares_query_timeout", connecting),
            ("grpc.enable_retries", 0),  # retries are ours: requests outgrow gRPC's retry buffer
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_http_proxy", int(not address.is_local)),
        ]
        self._warned = False

    def channel(self, module: Any) -> Any:
        """A new channel of `module`, grpc or grpc.aio."""
        options = list(self._options)
        if module is grpc:  # calls without a thread of gRPC's own, which cost two thirds less
            options.append((grpc.experimental.ChannelOptions.SingleThreadedUnaryStream, 1))
        if self._tls:
            return module.secure_channel(self.target, self._tls.credentials(), options)
        return module.insecure_channel(self.target, options)

    def metadata_of(self, request: Any) -> tuple[tuple[str, str], ...]:
        """The metadata of a call. It announces a large request, serialized, which can be refused before it is sent."""
        if not isinstance(request, bytes) or len(request) <= ANNOUNCED_FROM:
            return self.metadata
        return (*self.metadata, (REQUEST_BYTES_KEY, str(len(request))))

    def answered(self) -> None:
        """Takes note that the server answers."""
        self.reached, self.trouble = True, ""

    def heard(self, trailing: Iterable[tuple[str, str | bytes]] | None) -> None:
        """What the server says of itself at the end of a call. Warns, once, where it is too far from this version."""
        self.answered()
        told = dict(trailing or ())
        server = told.get(VERSION_KEY)
        if self._warned or not isinstance(server, str):
            return
        ours, theirs = ([int(part) for part in version.split(".")[:2]] for version in (VERSION, server))
        if ours[0] != theirs[0] or abs(ours[1] - theirs[1]) > 1:
            self._warned = True
            log.warning(
                "client %s talks to server %s; more than one minor version apart is not tested", VERSION, server
            )
