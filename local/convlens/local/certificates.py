"""Create a certificate authority, and certificates for a server and a client.

    python -m convlens.local.certificates DIR [HOST…]

creates what DIR does not contain yet, as `convlens up --tls-dir` does. No other module needs the package cryptography.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY: Final = "Convlens of "
"""Prefix of the names of authorities created here."""
CA_DAYS: Final = 3650
LEAF_DAYS: Final = 397
RENEW_DAYS: Final = 30
"""A certificate that expires within this time is replaced."""
LOCAL: Final = ("localhost", "127.0.0.1", "::1")
WILDCARDS: Final = {"0.0.0.0", "::"}  # noqa: S104 - excluded from certificates, not listened on


class NoAuthority(RuntimeError):
    """A certificate is missing and cannot be created; the message says which and what to do."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, as PEM files; the key is readable by its owner alone."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Certificates:
    """The three pairs that mutual TLS needs. Whoever holds the authority's key can create clients."""

    ca: Pair
    server: Pair
    client: Pair


def ensure_certificates(folder: Path, hosts: Sequence[str] = ()) -> Certificates:
    """Return the certificates in `folder`; create missing ones and replace those of this module before they expire.

    The server's is valid for `hosts`, this machine's name and loopback. Certificates of another authority are used as
    they are. Raises NoAuthority where a certificate is missing and ca.key, which is needed to sign it, is missing too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ca, server, client = (Pair(folder / f"{name}.pem", folder / f"{name}.key") for name in ("ca", "server", "client"))
    is_new = not ca.certificate.exists()
    if is_new:
        _create_authority(ca)
    names = sorted({*LOCAL, socket.gethostname(), *(host.strip("[]") for host in hosts)} - WILDCARDS)
    for pair, usage, pair_hosts in (
        (server, ExtendedKeyUsageOID.SERVER_AUTH, names),
        (client, ExtendedKeyUsageOID.CLIENT_AUTH, ["convlens-client"]),
    ):
        is_missing = is_new or not (pair.certificate.exists() and pair.key.exists())
        if is_missing or (ca.key.exists() and _is_outdated(pair.certificate, pair_hosts)):
            _create_certificate(pair, ca, usage, pair_hosts)
    return Certificates(ca, server, client)


def _create_authority(pair: Pair) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, (AUTHORITY + socket.gethostname())[:64])])
    builder = (
        _builder(name, name, key, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
    )
    _write(pair, builder.sign(key, hashes.SHA256()), key)


def _create_certificate(pair: Pair, authority: Pair, usage: x509.ObjectIdentifier, hosts: Sequence[str]) -> None:
    if not authority.key.exists():
        raise NoAuthority(
            f"{pair.certificate} or its key is missing, and so is {authority.key}, which is needed to create them: "
            f"put them there, or remove {authority.certificate} to have all created anew"
        )
    issuer = x509.load_pem_x509_certificate(authority.certificate.read_bytes())
    issuer_key = serialization.load_pem_private_key(authority.key.read_bytes(), password=None)
    if not isinstance(issuer_key, ec.EllipticCurvePrivateKey):
        raise NoAuthority(f"{authority.key} was not created by this program")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, pair.certificate.stem)])
    builder = (
        _builder(name, issuer.subject, key, LEAF_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
        )
    )  # fmt: skip
    _write(pair, builder.sign(issuer_key, hashes.SHA256()), key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates, key_cert_sign=signs_certificates, crl_sign=signs_certificates,
        content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _is_outdated(path: Path, hosts: Sequence[str]) -> bool:
    """Return whether a certificate created here expires soon or does not cover all of `hosts`."""
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    if not certificate.issuer.rfc4514_string().startswith(f"CN={AUTHORITY}"):
        return False
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    remaining = certificate.not_valid_after_utc - dt.datetime.now(dt.UTC)
    return remaining < dt.timedelta(days=RENEW_DAYS) or not {_general_name(host) for host in hosts} <= set(names)


def _write(pair: Pair, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    """Write both files, each atomically."""
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )  # fmt: skip
    for path, content, mode in (
        (pair.key, pem, 0o600),
        (pair.certificate, certificate.public_bytes(serialization.Encoding.PEM), 0o644),
    ):
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.unlink(missing_ok=True)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
        temporary.replace(path)


def main(argv: list[str]) -> int:
    """Create certificates, print their paths, and return the exit status."""
    if not argv or argv[0].startswith("-"):
        print("usage: python -m convlens.local.certificates DIR [HOST…]", file=sys.stderr)
        return 2
    try:
        pairs = ensure_certificates(Path(argv[0]), argv[1:])
    except (NoAuthority, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"server: {pairs.server.certificate} {pairs.server.key}\nclient: {' '.join(client_flags(pairs))}")
    return 0


def client_flags(pairs: Certificates) -> list[str]:
    """Return the flags with which `convlens` calls a server that has these certificates."""
    paths = {"--ca": pairs.ca.certificate, "--cert": pairs.client.certificate, "--key": pairs.client.key}
    return [text for flag, path in paths.items() for text in (flag, str(path))]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
