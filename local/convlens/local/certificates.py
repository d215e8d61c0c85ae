"""An authority of one's own, and certificates for a server and a client by it: `convlens up --tls-dir`, containers.

    python -m convlens.local.certificates DIR [HOST…]

makes what is not in DIR yet. Nothing else of the house needs the package cryptography.
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
"""How the names of the authorities begin that this makes."""
CA_DAYS: Final = 3650
LEAF_DAYS: Final = 397
RENEWED_DAYS: Final = 30
"""How long before its end a certificate is made anew."""
LOCAL: Final = ("localhost", "127.0.0.1", "::1")
WILDCARDS: Final = {"0.0.0.0", "::"}  # noqa: S104 - not listened on, but left out


class NoAuthority(RuntimeError):
    """A certificate is missing and cannot be made: which, and what to do."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, as files in PEM; the key is its owner's alone."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Certificates:
    """All that mutual TLS needs. Whoever holds the authority's key can make clients."""

    ca: Pair
    server: Pair
    client: Pair


def certificates(folder: Path, hosts: Sequence[str] = ()) -> Certificates:
    """The certificates in `folder`; what is missing is made, and what this made is made anew before it expires.

    The server's is for `hosts`, this machine's name and loopback. Raises NoAuthority where one is missing and the key
    of ca.pem is not there to make it: certificates of another authority are used as they are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ca, server, client = (Pair(folder / f"{it}.pem", folder / f"{it}.key") for it in ("ca", "server", "client"))
    new = not ca.certificate.exists()
    if new:
        _make_authority(ca)
    names = sorted({*LOCAL, socket.gethostname(), *(it.strip("[]") for it in hosts)} - WILDCARDS)
    for pair, usage, wanted in (
        (server, ExtendedKeyUsageOID.SERVER_AUTH, names),
        (client, ExtendedKeyUsageOID.CLIENT_AUTH, ["convlens-client"]),
    ):
        missing = new or not (pair.certificate.exists() and pair.key.exists())
        if missing or (ca.key.exists() and _outdated(pair.certificate, wanted)):
            _make(pair, ca, usage, wanted)
    return Certificates(ca, server, client)


def _make_authority(pair: Pair) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, (AUTHORITY + socket.gethostname())[:64])])
    builder = (
        _builder(name, name, key, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
    )
    _write(pair, builder.sign(key, hashes.SHA256()), key)


def _make(pair: Pair, authority: Pair, usage: x509.ObjectIdentifier, hosts: Sequence[str]) -> None:
    if not authority.key.exists():
        raise NoAuthority(
            f"{pair.certificate} or its key is missing, and so is {authority.key}, with which they could be made: "
            f"put them there, or remove {authority.certificate} to have all made anew"
        )
    issuer = x509.load_pem_x509_certificate(authority.certificate.read_bytes())
    issuer_key = serialization.load_pem_private_key(authority.key.read_bytes(), password=None)
    if not isinstance(issuer_key, ec.EllipticCurvePrivateKey):
        raise NoAuthority(f"{authority.key} was not made by this program")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, pair.certificate.stem)])
    builder = (
        _builder(name, issuer.subject, key, LEAF_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_host(it) for it in hosts]), critical=False)
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


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _outdated(path: Path, hosts: Sequence[str]) -> bool:
    """True for a certificate made by this that ends soon or is not for all of `hosts`."""
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    if not certificate.issuer.rfc4514_string().startswith(f"CN={AUTHORITY}"):
        return False
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    left = certificate.not_valid_after_utc - dt.datetime.now(dt.UTC)
    return left < dt.timedelta(days=RENEWED_DAYS) or not {_host(it) for it in hosts} <= set(found)


def _write(pair: Pair, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    """Puts both there, each whole or not at all."""
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )  # fmt: skip
    for path, content, mode in (
        (pair.key, pem, 0o600),
        (pair.certificate, certificate.public_bytes(serialization.Encoding.PEM), 0o644),
    ):
        part = path.with_name(f".{path.name}.{os.getpid()}")
        part.unlink(missing_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
        part.replace(path)


def main(argv: list[str]) -> int:
    """Makes certificates and says where; the exit status."""
    if not argv or argv[0].startswith("-"):
        print("usage: python -m convlens.local.certificates DIR [HOST…]", file=sys.stderr)
        return 2
    try:
        made = certificates(Path(argv[0]), argv[1:])
    except (NoAuthority, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"server: {made.server.certificate} {made.server.key}\nclient: {client_words(made)}")
    return 0


def client_words(made: Certificates) -> str:
    """The flags with which `convlens` calls a server that has these certificates."""
    return f"--ca {made.ca.certificate} --cert {made.client.certificate} --key {made.client.key}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
