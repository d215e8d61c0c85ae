"""The front's certificates, which may be replaced while it serves: new connections get the new ones."""

from __future__ import annotations

import ssl
from pathlib import Path

import grpc

from convlens.server.settings import ServerSettings
from convlens.server.watched import Unusable, Watched


def server_credentials(settings: ServerSettings) -> grpc.ServerCredentials | None:
    """TLS with the settings' certificate, and, with a client CA, only for clients that it vouches for; None: no TLS.

    Raises Unusable, naming the file.
    """
    certificate, key, client_ca = settings.tls_cert, settings.tls_key, settings.tls_client_ca
    if certificate is None and key is None and client_ca is None:
        return None
    if certificate is None or key is None:
        raise Unusable("TLS needs both tls_cert and tls_key")
    paths = [it for it in (certificate, key, client_ca) if it is not None]
    files = Watched(paths, lambda: _read(certificate, key, client_ca))
    first = given = files.value

    def changed() -> grpc.ServerCertificateConfiguration | None:
        """Called by gRPC, in a thread of its own, before each handshake; None: as before."""
        nonlocal given
        now = files.value
        if now is given:
            return None
        given = now
        return now

    return grpc.dynamic_ssl_server_credentials(
        first,
        changed,  # type: ignore[arg-type] # the stubs do not know of None
        require_client_authentication=client_ca is not None,
    )


def _read(certificate: Path, key: Path, client_ca: Path | None) -> grpc.ServerCertificateConfiguration:
    """The files' content, tried out: gRPC itself would only fail at each handshake."""
    pair = key.read_bytes(), certificate.read_bytes()
    ca = client_ca.read_bytes() if client_ca else None
    trial = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        trial.load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        raise Unusable(f"{certificate} and {key} are no certificate and its key in PEM: {error}") from None
    try:
        if ca is not None:
            trial.load_verify_locations(cadata=ca.decode())
    except (ssl.SSLError, ValueError) as error:
        raise Unusable(f"{client_ca} holds no certificates in PEM: {error}") from None
    return grpc.ssl_server_certificate_configuration([pair], root_certificates=ca)
