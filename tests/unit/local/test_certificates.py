"""Certificates of one's own: good for the strictest, for the hosts asked for, made anew in time, others' left alone."""

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


def names(path):
    found = x509.load_pem_x509_certificate(path.read_bytes())
    return {str(it.value) for it in found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value}


def shaken(server, client, hostname):
    """Both ends of a handshake in memory, strictly checked; raises what goes wrong."""
    ends = []
    for context, side in ((server, {"server_side": True}), (client, {"server_hostname": hostname})):
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        ends.append((ssl.MemoryBIO(), ssl.MemoryBIO(), context, side))
    objects = [context.wrap_bio(come, go, **side) for come, go, context, side in ends]
    done = set()
    for _ in range(10):
        for i, it in enumerate(objects):
            try:
                it.do_handshake()
                done.add(i)
            except ssl.SSLWantReadError:
                pass
            ends[1 - i][0].write(ends[i][1].read())
        if len(done) == 2:
            return
    pytest.fail("no handshake")


def contexts(made, ca):
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=ca.ca.certificate)
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_cert_chain(made.server.certificate, made.server.key)
    client = ssl.create_default_context(cafile=ca.ca.certificate)
    client.load_cert_chain(made.client.certificate, made.client.key)
    return server, client


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1", "queue.example", "10.1.2.3"])
def test_both_sides_trust_each_other_at_each_host(tmp_path, host):
    made = ensure_certificates(tmp_path, ["queue.example", "10.1.2.3", "0.0.0.0", "[::]"])
    shaken(*contexts(made, made), host)
    assert names(made.server.certificate).isdisjoint({"0.0.0.0", "::"})
    assert socket.gethostname() in names(made.server.certificate)


def test_neither_trusts_another_host_or_authority_or_the_other_ones_role(tmp_path):
    made, other = ensure_certificates(tmp_path / "one"), ensure_certificates(tmp_path / "two")
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shaken(*contexts(made, made), "elsewhere.example")
    with pytest.raises(ssl.SSLCertVerificationError):
        shaken(contexts(made, made)[0], contexts(other, other)[1], "localhost")
    server, client = contexts(made, made)
    client.load_cert_chain(made.server.certificate, made.server.key)
    with pytest.raises(ssl.SSLError, match=r"(?i)purpose|unsupported"):
        shaken(server, client, "localhost")


def test_what_is_there_is_kept_and_what_is_missing_made(tmp_path):
    ensure_certificates(tmp_path)
    before = content(tmp_path)
    ensure_certificates(tmp_path)
    assert content(tmp_path) == before
    (tmp_path / "client.key").unlink()
    ensure_certificates(tmp_path)
    changed = {name for name, data in content(tmp_path).items() if before[name] != data}
    assert changed == {"client.key", "client.pem"}
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("*.key")} == {0o600}


def test_a_certificate_is_made_anew_for_further_hosts_and_before_it_expires(tmp_path, monkeypatch):
    made = ensure_certificates(tmp_path)
    first = made.server.certificate.read_bytes()
    ensure_certificates(tmp_path, ["queue.example"])
    second = made.server.certificate.read_bytes()
    assert second != first
    assert "queue.example" in names(made.server.certificate)
    monkeypatch.setattr(module, "RENEW_DAYS", module.LEAF_DAYS + 1)
    ensure_certificates(tmp_path)
    assert made.server.certificate.read_bytes() != second
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


def test_it_is_a_command_too(tmp_path):
    command = [sys.executable, "-m", "convlens.local.certificates", tmp_path / "tls", "queue.example"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert f"--ca {tmp_path}/tls/ca.pem --cert {tmp_path}/tls/client.pem" in done.stdout
    assert subprocess.run(command[:3], check=False, capture_output=True).returncode == 2
