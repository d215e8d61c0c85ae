"""Passwords in Redis' URL are never told: not when Redis is away, or refuses them, or the URL cannot be read."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
import redis
from processes import until

PASSWORD = "s3cr3t-pa55word"
NOBODY = f"redis://user:{PASSWORD}@127.0.0.1:1/0"


@pytest.fixture
def guarded(own_valkey):
    """The URL of a Valkey that wants another password."""
    with redis.Redis(port=own_valkey.port) as client:
        client.config_set("requirepass", "another")
        yield f"redis://:{PASSWORD}@127.0.0.1:{own_valkey.port}/0"
        client.config_set("requirepass", "")


def told(module, url, *flags, log, sign):
    """All that a process says until `sign` has come up twice, or until it has ended."""
    env = os.environ | {"CONVLENS_REDIS_URL": url, "CONVLENS_LOG_LEVEL": "DEBUG"}
    command = [sys.executable, "-m", module, *flags]
    with log.open("w") as out, subprocess.Popen(command, env=env, stdout=out, stderr=out) as it:
        until(lambda: it.poll() is not None or log.read_text().count(sign) > 1, 90)
        time.sleep(1)
        it.terminate()
        it.wait(40)
    return log.read_text()


@pytest.mark.parametrize(
    ("module", "flags"),
    [
        ("convlens.server", ["--port=0"]),
        ("convlens.worker", ["--model=null=null"]),
        ("convlens.local.up", ["--port=0", "--model=null=null"]),
    ],
)
@pytest.mark.parametrize(("where", "sign"), [("unreachable", "127.0.0.1:1"), ("refusing", "invalid username-password")])
def test_no_log_has_the_password_of_a_redis_that_does_not_let_in(tmp_path, guarded, module, flags, where, sign):
    url = NOBODY if where == "unreachable" else guarded
    log = told(module, url, *flags, log=tmp_path / "log", sign=sign)
    assert sign in log
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
def test_a_url_that_cannot_be_read_is_refused_and_not_repeated(module, url):
    env = os.environ | {"CONVLENS_REDIS_URL": url}
    command = [sys.executable, "-m", module]
    done = subprocess.run(command, env=env, check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--redis-url: " in done.stderr
    assert "%" in done.stderr  # how such a password is written
    assert PASSWORD not in done.stderr
