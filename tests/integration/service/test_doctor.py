"""`convlens doctor` reports each misconfiguration and nothing else; servers and workers log them at start."""

from __future__ import annotations

import datetime as dt
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis
from credentials import new_token
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from processes import durable_valkey, running, until

from convlens.jobs.runtime.checks import Level
from convlens.server.checks import VERSION, check_version

SMALL = {"max_queued_bytes": 4 << 20, "max_stored_bytes": 4 << 20, "max_jobs": 100}
"""Bounds that fit in any Redis."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """A service with a worker on its own Valkey, and the target of its server."""
    folder = tmp_path_factory.mktemp("doctor")
    with durable_valkey(folder) as valkey, running(folder, valkey, **SMALL) as service:
        with redis.Redis.from_url(service.url) as client:
            client.config_set("appendonly", "yes")
            until(lambda: not client.info("persistence")["aof_rewrite_in_progress"])
        service.worker("null=null")
        yield service, service.server()[1]


@pytest.fixture
def client(stack):
    """A client of Valkey, whose configuration is restored after the test."""
    with redis.Redis.from_url(stack[0].url) as client:
        before = {name: client.config_get(name)[name] for name in ("maxmemory", "maxmemory-policy", "appendfsync")}
        yield client
        for name, value in before.items():
            client.config_set(name, value)
        client.config_set("appendonly", "yes")


def doctor(url, *flags, **variables):
    """Run `convlens doctor` and return its exit status and its findings: (level, message) pairs by check."""
    flags = [*flags, *(f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items())]
    env = {name: value for name, value in os.environ.items() if not name.startswith("CONVLENS_")}
    command = [sys.executable, "-m", "convlens.server.doctor", "--json", "--redis-url", url, *flags]
    process = subprocess.run(command, env=env | variables, check=False, capture_output=True, text=True, timeout=60)
    assert "Traceback" not in process.stderr, process.stderr
    report = json.loads(process.stdout)
    findings = {}
    for finding in report["findings"]:
        findings.setdefault(finding["check"], []).append((finding["level"], finding["message"]))
    assert report["ok"] == (not problems(findings)) == (process.returncode == 0)
    return process.returncode, findings


def problems(findings):
    """The messages of warnings and errors, by check."""
    return {
        check: message for check, pairs in findings.items() for level, message in pairs if level in {"warning", "error"}
    }


def test_a_correct_setup_has_no_problems(stack):
    service, target = stack
    status, findings = doctor(service.url, "--server", target)
    assert (status, problems(findings)) == (0, {})
    assert findings["models"] == [("ok", "served (workers): null (1)")]
    assert ("ok", f"workers of null: {VERSION}") in findings["versions"]
    assert findings["server"] == [("ok", f"server at {target}: {VERSION}")]
    command = [sys.executable, "-m", "convlens.server.doctor", "--redis-url", service.url]
    process = subprocess.run(command, check=False, capture_output=True, text=True)
    assert "append-only file" in process.stdout  # the report without --json


@pytest.mark.parametrize(
    ("setting", "value", "check", "message"),
    [
        ("appendonly", "no", "append-only file", "a restart loses acknowledged jobs"),
        ("appendfsync", "no", "append-only file", "set everysec"),
        ("maxmemory-policy", "allkeys-lru", "eviction", "maxmemory-policy is allkeys-lru"),
        ("maxmemory", "8mb", "memory", "its maxmemory is 8 MiB"),
    ],
)
def test_each_setting_of_redis_that_breaks_a_guarantee_is_reported(stack, client, setting, value, check, message):
    client.config_set(setting, value)
    status, findings = doctor(stack[0].url)
    assert status == 1
    assert set(problems(findings)) == {check}
    assert message in problems(findings)[check]


def test_a_check_that_redis_does_not_permit_is_unknown_and_not_a_problem(stack, client):
    client.acl_setuser(
        "limited", enabled=True, passwords=["+x"], keys=["*"], channels=["*"], commands=["+@all", "-config"]
    )
    url = stack[0].url.replace("redis://", "redis://limited:x@")
    status, findings = doctor(url)
    assert (status, problems(findings)) == (0, {})
    assert ("unknown", "appendfsync cannot be checked: CONFIG is not permitted") in findings["append-only file"]
    client.acl_setuser("limited", enabled=True, commands=["-info"])
    status, findings = doctor(url)
    assert problems(findings) == {}
    assert findings["redis"][0][0] == findings["eviction"][0][0] == "unknown"
    client.acl_deluser("limited")


def test_a_redis_that_cannot_be_reached_is_the_only_problem(tmp_path):
    status, findings = doctor("redis://:secret@127.0.0.1:1/0")
    assert (status, set(problems(findings))) == (1, {"redis"})
    assert "secret" not in str(findings)


def test_invalid_flags_and_settings_have_exit_status_2():
    for flags in (["--nonsense"], ["--redis-url", "http://x"]):
        command = [sys.executable, "-m", "convlens.server.doctor", *flags]
        assert subprocess.run(command, check=False, capture_output=True).returncode == 2


def certificate(folder: Path, days: int, names=("localhost",)) -> dict[str, str]:
    """Write a certificate that is valid for `days`, and return the settings that use it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), 1)
    builder = builder.not_valid_before(now - dt.timedelta(days=99))
    builder = builder.not_valid_after(now + dt.timedelta(days=days, hours=1))
    if names:
        dns_names = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        builder = builder.add_extension(dns_names, critical=False)
    (folder / "cert.pem").write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    formats = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, *formats))
    return {"CONVLENS_TLS_CERT": str(folder / "cert.pem"), "CONVLENS_TLS_KEY": str(folder / "key.pem")}


def test_certificates_and_tokens_are_checked(stack, tmp_path):
    url = stack[0].url
    status, findings = doctor(url, **certificate(tmp_path, 90))
    assert (status, problems(findings)) == (0, {})
    assert ("ok", "tls_cert: valid for localhost") in findings["certificates"]
    for days, names, message in (
        (13, ["a"], "expires in 13 days"),
        (-2, ["a"], "expired on"),
        (90, [], "no subjectAlt"),
    ):
        status, findings = doctor(url, **certificate(tmp_path, days, names))
        assert (status, set(problems(findings))) == (1, {"certificates"})
        assert message in problems(findings)["certificates"]
    (tmp_path / "tokens.toml").touch()
    status, findings = doctor(url, CONVLENS_TOKENS=str(tmp_path / "tokens.toml"))
    assert (status, set(problems(findings))) == (1, {"tokens"})
    token = new_token(tmp_path / "tokens.toml", "acme", "read")
    status, findings = doctor(url, CONVLENS_TOKENS=str(tmp_path / "tokens.toml"))
    assert (status, findings["tokens"]) == (0, [("ok", "1 tokens of 1 tenants")])
    assert token not in str(findings)
    status, findings = doctor(url, CONVLENS_TOKENS=str(tmp_path / "gone.toml"))
    assert "No such file" in problems(findings)["tokens"]


def test_a_wrong_clock_payload_folder_or_server_is_reported(stack, tmp_path):
    url = stack[0].url
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis").touch()
    status, findings = doctor(url, "--server", "127.0.0.1:1", "--payload-dir", str(tmp_path / "other"))
    assert set(problems(findings)) == {"server", "payload folder"}
    assert "holds other things than payloads" in problems(findings)["payload folder"]
    shift = tmp_path / "sitecustomize.py"
    shift.write_text("import time\nreal = time.time\ntime.time = lambda: real() + 30\n")
    status, findings = doctor(url, PYTHONPATH=f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    assert (status, set(problems(findings))) == (1, {"clock"})
    assert "+30.0 s" in problems(findings)["clock"]


def test_a_payload_folder_is_checked_as_by_the_server_and_not_created(stack, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "file").touch()
    for path, message in (
        (Path("/tmp"), "for every user"),
        (tmp_path / "link", "symbolic link"),
        (tmp_path / "file", "no folder"),
        (tmp_path / "file" / "below", "cannot be made"),
    ):
        _, findings = doctor(stack[0].url, "--payload-dir", str(path))
        assert set(problems(findings)) == {"payload folder"}
        assert message in problems(findings)["payload folder"]
    status, findings = doctor(stack[0].url, "--payload-dir", str(tmp_path / "new" / "payloads"))
    assert (status, problems(findings)) == (0, {})
    assert not (tmp_path / "new").exists()


def test_the_reason_is_reported_when_redis_refuses_a_command(stack, client):
    url = stack[0].url
    status, findings = doctor(f"{url.rpartition('/')[0]}/9999")
    assert (status, set(problems(findings))) == (1, {"redis"})
    assert "out of range" in problems(findings)["redis"]
    client.config_set("min-replicas-to-write", 1)
    try:
        status, findings = doctor(url)
    finally:
        client.config_set("min-replicas-to-write", 0)
    assert (status, set(problems(findings))) == (1, {"redis"})
    assert "does not let scripts write: NOREPLICAS" in problems(findings)["redis"]
    for commands, keys in ((["+@all", "-eval"], ["*"]), (["+@all"], ["other*"])):
        client.acl_setuser(
            "limited", enabled=True, reset=True, passwords=["+x"], keys=keys, channels=["*"], commands=commands
        )
        status, findings = doctor(url.replace("redis://", "redis://limited:x@"))
        assert "does not let scripts write: " in problems(findings)["redis"]
    client.acl_deluser("limited")
    client.config_set("maxclients", 100)
    status, findings = doctor(url)
    client.config_set("maxclients", 10000)
    assert problems(findings) == {"redis": "maxclients is 100: connections beyond are refused; set 256 or more"}
    assert not client.keys("convlens:doctor*")


def test_a_redis_that_hangs_is_reported_within_seconds():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        status, findings = doctor(f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
    assert (status, set(problems(findings))) == (1, {"redis"})
    assert findings["models"][0][0] == findings["clock"][0][0] == "unknown"
    assert time.monotonic() - start < 12  # a timeout of 4 s, and Python's start on a busy machine


@pytest.mark.parametrize("value", ["0", "false", "no", ""])
def test_a_variable_turns_tls_off_as_for_the_client(stack, value):
    service, target = stack
    assert doctor(service.url, "--server", target, CONVLENS_TLS=value)[0] == 0


@pytest.mark.parametrize(
    ("variable", "value"), [("CONVLENS_TLS", "1"), ("CONVLENS_TLS", "maybe"), ("CONVLENS_TOKEN", "a\nb")]
)
def test_unusable_client_variables_are_reported_as_problems_of_the_server(stack, variable, value):
    service, target = stack
    status, findings = doctor(service.url, "--server", target, **{variable: value})
    assert (status, set(problems(findings))) == (1, {"server"})


def test_versions_more_than_one_minor_apart_are_a_warning():
    major, minor = (int(number) for number in VERSION.split(".")[:2])
    assert check_version("w", f"{major}.{minor + 1}.9")[0] is Level.OK
    for other in (f"{major}.{minor + 2}.0", f"{major + 1}.{minor}.0", ""):
        assert check_version("w", other)[0] is Level.WARNING


def test_server_and_worker_log_misconfigurations_at_start(tmp_path):
    with durable_valkey(tmp_path) as valkey, running(tmp_path, valkey) as service:
        with redis.Redis.from_url(service.url) as client:
            client.config_set("maxmemory-policy", "allkeys-lru")
        service.worker("null=null")
        service.server()
        for log in tmp_path.glob("convlens.*.log"):
            until(lambda log=log: "check=eviction maxmemory-policy is allkeys-lru" in log.read_text(), 20)
