"""How a client reaches a server: address, TLS, token, channel options, version check."""

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
"""Bytes of a request from which on its size is announced in the metadata."""
MAX_CONNECT_ATTEMPT: Final = 20.0
"""Seconds of one attempt to connect, at most; gRPC's own default."""


@dataclass(frozen=True, slots=True)
class TLS:
    """Certificates, as PEM files."""

    ca: str | Path | None = None
    """The authorities to trust; None for the system's."""
    certificate: str | Path | None = None
    """The client's own, for mutual TLS."""
    key: str | Path | None = None
    """The key of `certificate`."""

    def credentials(self) -> grpc.ChannelCredentials:
        """Return gRPC's credentials. InvalidArgument names the file that is missing, unreadable or invalid."""
        if (self.certificate is None) != (self.key is None):
            missing = "key" if self.key is None else "certificate"
            raise InvalidArgument("tls: a certificate and its key go together", field=f"tls.{missing}")
        ca, key, certificate = (_read(name, getattr(self, name)) for name in ("ca", "key", "certificate"))
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
    """Read a file; `name` is its field of TLS."""
    try:
        return Path(path).read_bytes() if path else None
    except OSError as error:
        raise InvalidArgument(f"tls.{name}: cannot read {path}: {error.strerror}", field=f"tls.{name}") from None


Metadata = tuple[tuple[str, str], ...]
"""The metadata of a call."""


def token_metadata(token: str | None) -> Metadata:
    """Return the metadata that a token is sent as. InvalidArgument for one that cannot be sent."""
    if token is not None and not (isinstance(token, str) and re.fullmatch("[!-~]*", token)):
        message = "the token has other characters than visible ASCII, such as a line's end; give it alone"
        raise InvalidArgument(message, field="token")
    return (("authorization", f"Bearer {token}"),) if token else ()


def call_metadata(metadata: Metadata, request: Any) -> Metadata:
    """Add the size of a large request to the metadata of its call, so that the server may refuse it early."""
    if not isinstance(request, bytes) or len(request) <= ANNOUNCED_FROM:
        return metadata
    return (*metadata, (REQUEST_BYTES_KEY, str(len(request))))


def keep_freed_memory() -> None:
    """Have glibc keep the memory of a call's messages for the next call, by freeing one large block.

    It keeps up to twice the largest block of less than 32 MiB that was ever freed (mallopt(3), M_MMAP_THRESHOLD), so a
    program that has decoded a photo keeps as much. Without one, each call would return the memory of its messages and
    fetch it again: a tenth of the time of single calls with arrays, and of pixels through map.
    """
    bytes(31 << 20)


class Connection:
    """Settings and state of a client's connection, independent of processes and event loops."""

    def __init__(
        self,
        target: str,
        token: str | None,
        tls: TLS | bool | None,
        connect_timeout: float = DEFAULT_CONNECT_TIMEOUT,
    ) -> None:
        """Check the settings. InvalidArgument names the one that is invalid: target, token or tls."""
        address = parse_address(target)
        self.metadata = token_metadata(token)
        if not isinstance(tls, TLS | bool | None):
            raise InvalidArgument(f"tls is {tls!r}; allowed: TLS(…), True, False, None", field="tls")
        self._tls = TLS() if tls is True else tls or None
        self.target = target
        self.caller = Caller(address, self._tls is not None, bool(self._tls and self._tls.certificate))
        self.connect_timeout = connect_timeout
        self.is_reached = False
        """True once the server has answered anything."""
        self.trouble = ""
        """Why calls are being retried, as a sentence for people; empty if they are not."""
        if token and not tls and not address.is_local:
            log.warning("the token for %s travels in the clear: anyone on the way can read it; see TLS", target)
        connect_ms = int(1000 * min(connect_timeout, MAX_CONNECT_ATTEMPT))
        self._options: list[tuple[str, Any]] = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.keepalive_time_ms", 30_000),  # the server allows one in 20 s; a dead connection shows within 40
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.http2.ping_timeout_ms", 10_000),  # or gRPC waits for a minute, whatever keepalive_timeout_ms says
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", 2_000),
            ("grpc.min_reconnect_backoff_ms", connect_ms),  # which is how long gRPC waits for a connection
            ("grpc.dns_ares_query_timeout", connect_ms),
            ("grpc.enable_retries", 0),  # retries are ours: requests outgrow gRPC's retry buffer
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_http_proxy", int(not address.is_local)),
        ]
        self._warned = False

    def credentials(self) -> grpc.ChannelCredentials | None:
        """Read the certificates; None without TLS. InvalidArgument as of TLS.credentials()."""
        return self._tls.credentials() if self._tls else None

    def channel(self, module: Any, credentials: grpc.ChannelCredentials | None) -> Any:
        """Return a new channel of `module`, grpc or grpc.aio."""
        keep_freed_memory()
        options = list(self._options)
        if module is grpc:  # no thread of gRPC's own per call: a third of the cost
            options.append((grpc.experimental.ChannelOptions.SingleThreadedUnaryStream, 1))
        if credentials:
            return module.secure_channel(self.target, credentials, options)
        return module.insecure_channel(self.target, options)

    def mark_reached(self) -> None:
        """Record that the server answers."""
        self.is_reached, self.trouble = True, ""

    def read_trailers(self, trailers: Iterable[tuple[str, str | bytes]] | None) -> None:
        """Read the trailing metadata of a call. Warn, once, if the server's version is too far from this one."""
        self.mark_reached()
        server = dict(trailers or ()).get(VERSION_KEY)
        if self._warned or not isinstance(server, str):
            return
        (major, minor), (its_major, its_minor) = (map(int, version.split(".")[:2]) for version in (VERSION, server))
        if major != its_major or abs(minor - its_minor) > 1:
            self._warned = True
            log.warning(
                "client %s talks to server %s; more than one minor version apart is not tested", VERSION, server
            )
