"""The front's certificates, which may be replaced while it serves: new connections get the new ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from convlens.server.auth.reloading_file import Unusable, Watched
from convlens.server.settings import ServerSettings

_PUBLIC: Final = Encoding.DER, PublicFormat.SubjectPublicKeyInfo


@dataclass(frozen=True, slots=True)
class Certificates:
    """What the files hold: PEM for gRPC, and read for whoever wants to know what is in them."""

    key: bytes
    pem: bytes
    ca_pem: bytes | None
    chain: list[x509.Certificate]
    """The server's own certificate, then those that vouch for it."""
    client_ca: list[x509.Certificate]

    def configuration(self) -> grpc.ServerCertificateConfiguration:
        """As gRPC wants them."""
        return grpc.ssl_server_certificate_configuration([(self.key, self.pem)], root_certificates=self.ca_pem)


def watched_certificates(settings: ServerSettings) -> Watched[Certificates] | None:
    """The files of the settings; None: no TLS. Raises Unusable, naming setting and file."""
    certificate, key, client_ca = settings.tls_cert, settings.tls_key, settings.tls_client_ca
    if certificate is None and key is None and client_ca is None:
        return None
    if certificate is None or key is None:
        raise Unusable("TLS needs both tls_cert and tls_key")
    files = {"tls_cert": certificate, "tls_key": key} | ({"tls_client_ca": client_ca} if client_ca else {})

    def parse(contents: list[bytes]) -> Certificates:
        """The files' content, tried out: gRPC itself would only fail at each handshake."""
        pem, key_pem, *cas = contents
        try:
            chain = x509.load_pem_x509_certificates(pem)
            public = load_pem_private_key(key_pem, password=None).public_key()
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:  # TypeError: it has a password
            raise Unusable(
                f"tls_cert {certificate} and tls_key {key} are no certificate and its key in PEM: {error}"
            ) from None
        if chain[0].public_key().public_bytes(*_PUBLIC) != public.public_bytes(*_PUBLIC):
            raise Unusable(
                f"tls_cert {certificate} and tls_key {key} are no certificate and its key: they do not fit each other"
            )
        try:
            client_cas = [it for ca in cas for it in x509.load_pem_x509_certificates(ca)]
        except ValueError as error:
            raise Unusable(f"tls_client_ca {client_ca} holds no certificates in PEM: {error}") from None
        return Certificates(key_pem, pem, cas[0] if cas else None, chain, client_cas)

    def lacks(new: Certificates, old: Certificates) -> bool:
        """Whether clients that trust or have what is in `old` could be refused: a bundle is written piece by piece."""
        return len(new.chain) < len(old.chain) or not set(old.client_ca) <= set(new.client_ca)

    return Watched(files, parse, lacks)


def server_credentials(settings: ServerSettings) -> grpc.ServerCredentials | None:
    """TLS with the settings' certificate, and, with a client CA, only for clients that it vouches for; None: no TLS.

    Raises Unusable, naming the file.
    """
    files = watched_certificates(settings)
    if files is None:
        return None
    given = files.value

    def changed() -> grpc.ServerCertificateConfiguration | None:
        """Called by gRPC, in a thread of its own, before each handshake; None: as before."""
        nonlocal given
        now = files.value
        if now == given:
            return None
        given = now
        return now.configuration()

    return grpc.dynamic_ssl_server_credentials(
        given.configuration(),
        changed,  # type: ignore[arg-type] # the stubs do not know of None
        require_client_authentication=settings.tls_client_ca is not None,
    )
