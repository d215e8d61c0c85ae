"""Passwords in Redis' URL are never logged: not if Redis is unreachable or refuses them, or the URL is malformed."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
import redis
from processes import until

PASSWORD = "s3cr3t-pa55word"
UNREACHABLE = f"redis://user:{PASSWORD}@127.0.0.1:1/0"


@pytest.fixture
def guarded(own_valkey):
    """The URL, with a wrong password, of a Valkey that requires one."""
    with redis.Redis(port=own_valkey.port) as client:
        client.config_set("requirepass", "another")
        yield f"redis://:{PASSWORD}@127.0.0.1:{own_valkey.port}/0"
        client.config_set("requirepass", "")


def run_until(module, url, *flags, log, message):
    """Run a process until it has ended or logged `message` twice, and return its whole output."""
    env = os.environ | {"CONVLENS_REDIS_URL": url, "CONVLENS_LOG_LEVEL": "DEBUG"}
    command = [sys.executable, "-m", module, *flags]
    with log.open("w") as out, subprocess.Popen(command, env=env, stdout=out, stderr=out) as process:
        until(lambda: process.poll() is not None or log.read_text().count(message) > 1, 90)
        time.sleep(1)
        process.terminate()
        process.wait(40)
    return log.read_text()


@pytest.mark.parametrize(
    ("module", "flags"),
    [
        ("convlens.server", ["--port=0"]),
        ("convlens.worker", ["--model=null=null"]),
        ("convlens.local.up", ["--port=0", "--model=null=null"]),
    ],
)
@pytest.mark.parametrize(
    ("problem", "message"), [("unreachable", "127.0.0.1:1"), ("refusing", "invalid username-password")]
)
def test_no_log_has_the_password_of_an_unusable_redis(tmp_path, guarded, module, flags, problem, message):
    url = UNREACHABLE if problem == "unreachable" else guarded
    log = run_until(module, url, *flags, log=tmp_path / "log", message=message)
    assert message in log
    assert PASSWORD not in log


@pytest.mark.parametrize("module", ["convlens.server", "convlens.worker", "convlens.local.up"])
@pytest.mark.parametrize(
    "url",
    [
        f"redis://:{PASSWORD}/x@127.0.0.1:1/0",
        f"redis://:{PASSWORD}#x@127.0.0.1:1/0",
        f"redis://:{PASSWORD}@127.0.0.1:port/0",
        f"valkey://:{PASSWORD}@127.0.0.1:1/0",
        f"{PASSWORD}@127.0.0.1",
    ],
    ids=["slash", "hash", "port", "scheme", "none"],
)
def test_a_malformed_url_is_refused_and_not_logged(module, url):
    env = os.environ | {"CONVLENS_REDIS_URL": url}
    command = [sys.executable, "-m", module]
    process = subprocess.run(command, env=env, check=False, capture_output=True, text=True, timeout=60)
    assert (process.returncode, process.stdout) == (2, "")
    assert "--redis-url: " in process.stderr
    assert "%" in process.stderr  # the message explains percent encoding
    assert PASSWORD not in process.stderr
