"""Loads the server's TLS certificates, which may be replaced while it runs: new connections get the new ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from convlens.server.auth.reloading_file import ReloadingFile, UnusableFile
from convlens.server.settings import ServerSettings

_PUBLIC: Final = Encoding.DER, PublicFormat.SubjectPublicKeyInfo


@dataclass(frozen=True, slots=True)
class Certificates:
    """The content of the certificate files: as PEM for gRPC, and parsed for checks."""

    key: bytes
    pem: bytes
    ca_pem: bytes | None
    chain: list[x509.Certificate]
    """The server's own certificate, then its issuers."""
    client_ca: list[x509.Certificate]

    def configuration(self) -> grpc.ServerCertificateConfiguration:
        """Return them as gRPC takes them."""
        return grpc.ssl_server_certificate_configuration([(self.key, self.pem)], root_certificates=self.ca_pem)


def load_certificates(settings: ServerSettings) -> ReloadingFile[Certificates] | None:
    """Load the files of the settings; None without TLS. UnusableFile names setting and file."""
    certificate, key, client_ca = settings.tls_cert, settings.tls_key, settings.tls_client_ca
    if certificate is None and key is None and client_ca is None:
        return None
    if certificate is None or key is None:
        raise UnusableFile("TLS needs both tls_cert and tls_key")
    files = {"tls_cert": certificate, "tls_key": key} | ({"tls_client_ca": client_ca} if client_ca else {})

    def parse(contents: list[bytes]) -> Certificates:
        """Parse and check the files: gRPC itself would fail at each handshake only."""
        pem, key_pem, *cas = contents
        try:
            chain = x509.load_pem_x509_certificates(pem)
            public = load_pem_private_key(key_pem, password=None).public_key()
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:  # TypeError: it has a password
            raise UnusableFile(
                f"tls_cert {certificate} and tls_key {key} are no certificate and its key in PEM: {error}"
            ) from None
        if chain[0].public_key().public_bytes(*_PUBLIC) != public.public_bytes(*_PUBLIC):
            raise UnusableFile(
                f"tls_cert {certificate} and tls_key {key} are no certificate and its key: they do not fit each other"
            )
        try:
            client_cas = [certificate for ca in cas for certificate in x509.load_pem_x509_certificates(ca)]
        except ValueError as error:
            raise UnusableFile(f"tls_client_ca {client_ca} holds no certificates in PEM: {error}") from None
        return Certificates(key_pem, pem, cas[0] if cas else None, chain, client_cas)

    def lacks(new: Certificates, old: Certificates) -> bool:
        """Whether clients accepted with `old` could fail with `new`: a bundle is written piece by piece."""
        return len(new.chain) < len(old.chain) or not set(old.client_ca) <= set(new.client_ca)

    return ReloadingFile(files, parse, lacks)


def server_credentials(settings: ServerSettings) -> grpc.ServerCredentials | None:
    """Make credentials that require clients' certificates where a client CA is set; None without TLS.

    UnusableFile names the file.
    """
    files = load_certificates(settings)
    if files is None:
        return None
    current = files.value

    def fetch_changed() -> grpc.ServerCertificateConfiguration | None:
        """Return changed certificates, or None. gRPC calls it before each handshake, in a thread of its own."""
        nonlocal current
        latest = files.value
        if latest == current:
            return None
        current = latest
        return latest.configuration()

    return grpc.dynamic_ssl_server_credentials(
        current.configuration(),
        fetch_changed,  # type: ignore[arg-type] # the stubs do not know of None
        require_client_authentication=settings.tls_client_ca is not None,
    )
