"""Own certificates: valid for the requested hosts under strict checks, renewed in time; others' are left alone."""

from __future__ import annotations

import datetime as dt
import socket
import ssl
import subprocess
import sys

import pytest
from cryptography import x509

from convlens.local import certificates as module
from convlens.local.certificates import NoAuthority, ensure_certificates


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def hosts(path):
    """The host names and addresses of a certificate."""
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return {str(name.value) for name in extension.value}


def do_handshake(server, client, hostname):
    """Do a TLS handshake in memory with strict checks; raise the error of the end that refuses."""
    ends = []
    for context, side in ((server, {"server_side": True}), (client, {"server_hostname": hostname})):
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        ends.append((ssl.MemoryBIO(), ssl.MemoryBIO(), context, side))
    connections = [context.wrap_bio(incoming, outgoing, **side) for incoming, outgoing, context, side in ends]
    finished = set()
    for _ in range(10):
        for i, connection in enumerate(connections):
            try:
                connection.do_handshake()
                finished.add(i)
            except ssl.SSLWantReadError:
                pass
            ends[1 - i][0].write(ends[i][1].read())
        if len(finished) == 2:
            return
    pytest.fail("no handshake")


def contexts(certificates):
    """The TLS contexts of a server and a client that have these certificates and require each other's."""
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificates.ca.certificate)
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_cert_chain(certificates.server.certificate, certificates.server.key)
    client = ssl.create_default_context(cafile=certificates.ca.certificate)
    client.load_cert_chain(certificates.client.certificate, certificates.client.key)
    return server, client


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1", "queue.example", "10.1.2.3"])
def test_both_sides_trust_each_other_at_each_host(tmp_path, host):
    certificates = ensure_certificates(tmp_path, ["queue.example", "10.1.2.3", "0.0.0.0", "[::]"])
    do_handshake(*contexts(certificates), host)
    assert hosts(certificates.server.certificate).isdisjoint({"0.0.0.0", "::"})
    assert socket.gethostname() in hosts(certificates.server.certificate)


def test_another_host_authority_or_role_is_not_trusted(tmp_path):
    certificates, other = ensure_certificates(tmp_path / "one"), ensure_certificates(tmp_path / "two")
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        do_handshake(*contexts(certificates), "elsewhere.example")
    with pytest.raises(ssl.SSLCertVerificationError):
        do_handshake(contexts(certificates)[0], contexts(other)[1], "localhost")
    server, client = contexts(certificates)
    client.load_cert_chain(certificates.server.certificate, certificates.server.key)
    with pytest.raises(ssl.SSLError, match=r"(?i)purpose|unsupported"):
        do_handshake(server, client, "localhost")


def test_existing_files_are_kept_and_missing_ones_created(tmp_path):
    ensure_certificates(tmp_path)
    before = content(tmp_path)
    ensure_certificates(tmp_path)
    assert content(tmp_path) == before
    (tmp_path / "client.key").unlink()
    ensure_certificates(tmp_path)
    changed = {name for name, data in content(tmp_path).items() if before[name] != data}
    assert changed == {"client.key", "client.pem"}
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("*.key")} == {0o600}


def test_a_certificate_is_renewed_for_further_hosts_and_before_expiry(tmp_path, monkeypatch):
    certificates = ensure_certificates(tmp_path)
    first = certificates.server.certificate.read_bytes()
    ensure_certificates(tmp_path, ["queue.example"])
    second = certificates.server.certificate.read_bytes()
    assert second != first
    assert "queue.example" in hosts(certificates.server.certificate)
    monkeypatch.setattr(module, "RENEW_DAYS", module.LEAF_DAYS + 1)
    ensure_certificates(tmp_path)
    assert certificates.server.certificate.read_bytes() != second
    assert x509.load_pem_x509_certificate(first).not_valid_after_utc < dt.datetime.now(dt.UTC) + dt.timedelta(days=398)


def test_others_certificates_are_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "AUTHORITY", "Somebody's authority ")
    ensure_certificates(tmp_path)
    monkeypatch.undo()
    before = content(tmp_path)
    ensure_certificates(tmp_path, ["queue.example"])
    assert content(tmp_path) == before
    (tmp_path / "ca.key").unlink()
    (tmp_path / "client.pem").unlink()
    with pytest.raises(NoAuthority, match=r"client.pem or its key is missing"):
        ensure_certificates(tmp_path)


def test_the_module_is_a_command_too(tmp_path):
    command = [sys.executable, "-m", "convlens.local.certificates", tmp_path / "tls", "queue.example"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert f"--ca {tmp_path}/tls/ca.pem --cert {tmp_path}/tls/client.pem" in done.stdout
    assert subprocess.run(command[:3], check=False, capture_output=True).returncode == 2
