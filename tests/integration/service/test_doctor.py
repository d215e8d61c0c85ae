"""`convlens doctor` finds each thing that is set up wrongly, and nothing else; servers and workers log it at start."""

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
"""Bounds that fit any Redis."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """A Valkey, a service with a worker and a server, and the server's target."""
    folder = tmp_path_factory.mktemp("doctor")
    with durable_valkey(folder) as valkey, running(folder, valkey, **SMALL) as service:
        with redis.Redis.from_url(service.url) as client:
            client.config_set("appendonly", "yes")
            until(lambda: not client.info("persistence")["aof_rewrite_in_progress"])
        service.worker("null=null")
        yield service, service.server()[1]


@pytest.fixture
def client(stack):
    """A client of Valkey, whose settings are put back afterwards."""
    with redis.Redis.from_url(stack[0].url) as client:
        before = {name: client.config_get(name)[name] for name in ("maxmemory", "maxmemory-policy", "appendfsync")}
        yield client
        for name, value in before.items():
            client.config_set(name, value)
        client.config_set("appendonly", "yes")


def doctor(url, *flags, **variables):
    """The exit status, and by check what was found: pairs of level and message."""
    flags = [*flags, *(f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items())]
    env = {name: value for name, value in os.environ.items() if not name.startswith("CONVLENS_")}
    command = [sys.executable, "-m", "convlens.server.doctor", "--json", "--redis-url", url, *flags]
    done = subprocess.run(command, env=env | variables, check=False, capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr, done.stderr
    found = {}
    for it in json.loads(done.stdout)["findings"]:
        found.setdefault(it["check"], []).append((it["level"], it["message"]))
    bad = {level for findings in found.values() for level, _ in findings} & {"warning", "error"}
    assert json.loads(done.stdout)["ok"] == (not bad) == (done.returncode == 0)
    return done.returncode, found


def problems(found):
    return {check: message for check, it in found.items() for level, message in it if level in {"warning", "error"}}


def test_where_all_is_well_there_is_nothing_to_do(stack):
    service, target = stack
    status, found = doctor(service.url, "--server", target)
    assert (status, problems(found)) == (0, {})
    assert found["models"] == [("ok", "served (workers): null (1)")]
    assert ("ok", f"workers of null: {VERSION}") in found["versions"]
    assert found["server"] == [("ok", f"server at {target}: {VERSION}")]
    command = [sys.executable, "-m", "convlens.server.doctor", "--redis-url", service.url]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert "append-only file" in done.stdout  # for people


@pytest.mark.parametrize(
    ("setting", "value", "check", "message"),
    [
        ("appendonly", "no", "append-only file", "a restart loses acknowledged jobs"),
        ("appendfsync", "no", "append-only file", "set everysec"),
        ("maxmemory-policy", "allkeys-lru", "eviction", "maxmemory-policy is allkeys-lru"),
        ("maxmemory", "8mb", "memory", "its maxmemory is 8 MiB"),
    ],
)
def test_each_setting_of_redis_that_breaks_a_promise_is_found(stack, client, setting, value, check, message):
    client.config_set(setting, value)
    status, found = doctor(stack[0].url)
    assert status == 1
    assert set(problems(found)) == {check}
    assert message in problems(found)[check]


def test_what_redis_does_not_permit_cannot_be_checked_and_is_no_problem(stack, client):
    client.acl_setuser(
        "limited", enabled=True, passwords=["+x"], keys=["*"], channels=["*"], commands=["+@all", "-config"]
    )
    url = stack[0].url.replace("redis://", "redis://limited:x@")
    status, found = doctor(url)
    assert (status, problems(found)) == (0, {})
    assert ("unknown", "appendfsync cannot be checked: CONFIG is not permitted") in found["append-only file"]
    client.acl_setuser("limited", enabled=True, commands=["-info"])
    status, found = doctor(url)
    assert problems(found) == {}
    assert found["redis"][0][0] == found["eviction"][0][0] == "unknown"
    client.acl_deluser("limited")


def test_a_redis_that_cannot_be_reached_is_the_only_problem(tmp_path):
    status, found = doctor("redis://:secret@127.0.0.1:1/0")
    assert (status, set(problems(found))) == (1, {"redis"})
    assert "secret" not in str(found)


def test_wrong_flags_and_settings_have_a_status_of_their_own():
    for flags in (["--nonsense"], ["--redis-url", "http://x"]):
        done = subprocess.run(
            [sys.executable, "-m", "convlens.server.doctor", *flags], check=False, capture_output=True
        )
        assert done.returncode == 2


def certificate(folder: Path, days: int, names=("localhost",)) -> dict[str, str]:
    """Settings for a certificate that is good for so many days."""
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.UTC)
    made = x509.CertificateBuilder(who, who, key.public_key(), 1)
    made = made.not_valid_before(now - dt.timedelta(days=99))
    made = made.not_valid_after(now + dt.timedelta(days=days, hours=1))
    if names:
        made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(it) for it in names]), critical=False)
    (folder / "cert.pem").write_bytes(made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    kinds = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, *kinds))
    return {"CONVLENS_TLS_CERT": str(folder / "cert.pem"), "CONVLENS_TLS_KEY": str(folder / "key.pem")}


def test_certificates_and_tokens_are_looked_into(stack, tmp_path):
    url = stack[0].url
    status, found = doctor(url, **certificate(tmp_path, 90))
    assert (status, problems(found)) == (0, {})
    assert ("ok", "tls_cert: valid for localhost") in found["certificates"]
    for days, names, message in (
        (13, ["a"], "expires in 13 days"),
        (-2, ["a"], "expired on"),
        (90, [], "no subjectAlt"),
    ):
        status, found = doctor(url, **certificate(tmp_path, days, names))
        assert (status, set(problems(found))) == (1, {"certificates"})
        assert message in problems(found)["certificates"]
    (tmp_path / "tokens.toml").touch()
    status, found = doctor(url, CONVLENS_TOKENS=str(tmp_path / "tokens.toml"))
    assert (status, set(problems(found))) == (1, {"tokens"})
    token = new_token(tmp_path / "tokens.toml", "acme", "read")
    status, found = doctor(url, CONVLENS_TOKENS=str(tmp_path / "tokens.toml"))
    assert (status, found["tokens"]) == (0, [("ok", "1 tokens of 1 tenants")])
    assert token not in str(found)
    status, found = doctor(url, CONVLENS_TOKENS=str(tmp_path / "gone.toml"))
    assert "No such file" in problems(found)["tokens"]


def test_a_clock_a_payload_folder_and_a_server_that_are_wrong_are_found(stack, tmp_path):
    url = stack[0].url
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis").touch()
    status, found = doctor(url, "--server", "127.0.0.1:1", "--payload-dir", str(tmp_path / "other"))
    assert set(problems(found)) == {"server", "payload folder"}
    assert "holds other things than payloads" in problems(found)["payload folder"]
    shift = tmp_path / "sitecustomize.py"
    shift.write_text("import time\nreal = time.time\ntime.time = lambda: real() + 30\n")
    status, found = doctor(url, PYTHONPATH=f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    assert (status, set(problems(found))) == (1, {"clock"})
    assert "+30.0 s" in problems(found)["clock"]


def test_a_payload_folder_is_held_to_what_the_server_holds_it_to_and_is_not_touched(stack, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "file").touch()
    for path, message in (
        (Path("/tmp"), "for every user"),
        (tmp_path / "link", "symbolic link"),
        (tmp_path / "file", "no folder"),
        (tmp_path / "file" / "below", "cannot be made"),
    ):
        found = doctor(stack[0].url, "--payload-dir", str(path))[1]
        assert set(problems(found)) == {"payload folder"}
        assert message in problems(found)["payload folder"]
    status, found = doctor(stack[0].url, "--payload-dir", str(tmp_path / "new" / "payloads"))
    assert (status, problems(found)) == (0, {})
    assert not (tmp_path / "new").exists()


def test_a_redis_that_refuses_says_why(stack, client):
    url = stack[0].url
    status, found = doctor(f"{url.rpartition('/')[0]}/9999")
    assert (status, set(problems(found))) == (1, {"redis"})
    assert "out of range" in problems(found)["redis"]
    client.config_set("min-replicas-to-write", 1)
    try:
        status, found = doctor(url)
    finally:
        client.config_set("min-replicas-to-write", 0)
    assert (status, set(problems(found))) == (1, {"redis"})
    assert "does not let scripts write: NOREPLICAS" in problems(found)["redis"]
    for commands, keys in ((["+@all", "-eval"], ["*"]), (["+@all"], ["other*"])):
        client.acl_setuser(
            "limited", enabled=True, reset=True, passwords=["+x"], keys=keys, channels=["*"], commands=commands
        )
        status, found = doctor(url.replace("redis://", "redis://limited:x@"))
        assert "does not let scripts write: " in problems(found)["redis"]
    client.acl_deluser("limited")
    client.config_set("maxclients", 100)
    status, found = doctor(url)
    client.config_set("maxclients", 10000)
    assert problems(found) == {"redis": "maxclients is 100: connections beyond are refused; set 256 or more"}
    assert not client.keys("convlens:doctor*")


def test_a_redis_that_hangs_is_told_soon():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        status, found = doctor(f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
    assert (status, set(problems(found))) == (1, {"redis"})
    assert found["models"][0][0] == found["clock"][0][0] == "unknown"
    assert time.monotonic() - started < 12  # 4 s of waiting, and Python's start on a busy machine


@pytest.mark.parametrize("word", ["0", "false", "no", ""])
def test_tls_that_a_variable_turns_off_is_off_as_for_the_client(stack, word):
    service, target = stack
    assert doctor(service.url, "--server", target, CONVLENS_TLS=word)[0] == 0


@pytest.mark.parametrize(
    ("variable", "value"), [("CONVLENS_TLS", "1"), ("CONVLENS_TLS", "maybe"), ("CONVLENS_TOKEN", "a\nb")]
)
def test_variables_of_a_call_that_cannot_be_made_are_problems_of_the_server(stack, variable, value):
    service, target = stack
    status, found = doctor(service.url, "--server", target, **{variable: value})
    assert (status, set(problems(found))) == (1, {"server"})


def test_versions_more_than_a_minor_one_apart_do_not_fit():
    major, minor = (int(it) for it in VERSION.split(".")[:2])
    assert check_version("w", f"{major}.{minor + 1}.9")[0] is Level.OK
    for other in (f"{major}.{minor + 2}.0", f"{major + 1}.{minor}.0", ""):
        assert check_version("w", other)[0] is Level.WARNING


def test_server_and_worker_say_at_start_what_is_wrong(tmp_path):
    with durable_valkey(tmp_path) as valkey, running(tmp_path, valkey) as service:
        with redis.Redis.from_url(service.url) as client:
            client.config_set("maxmemory-policy", "allkeys-lru")
        service.worker("null=null")
        service.server()
        for log in tmp_path.glob("convlens.*.log"):
            until(lambda log=log: "check=eviction maxmemory-policy is allkeys-lru" in log.read_text(), 20)
