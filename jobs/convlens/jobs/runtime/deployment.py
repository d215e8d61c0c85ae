"""Checks of what server and workers share: Redis as it is configured, clocks, descriptors, the payload folder."""

from __future__ import annotations

import os
import resource
import shutil
import time
import uuid
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from convlens.jobs.payloads.directory import check_contents
from convlens.jobs.payloads.own_folder import OwnFolder, UnusableFolder
from convlens.jobs.runtime.checks import Check, Level
from convlens.jobs.runtime.redis_client import KEY_PREFIX, connect
from convlens.jobs.runtime.settings import JobsSettings

NEEDED_REDIS: Final = (7, 0)
"""The first version whose scripts may have flags (allow-oom); each Valkey has them."""
DESCRIPTORS: Final = 4096
"""A connection takes one each, a payload in a folder one while it is written or read."""
CONNECTIONS: Final = 256
"""What a server and a few workers may have to Redis."""
CLOCK_SECONDS: Final = 1.0
RECORD_BYTES: Final = 4096
"""What a live job takes in Redis beside its payloads, indexes included."""

PROBE: Final = "redis.call('set', KEYS[1], '', 'PX', 1000) return redis.call('del', KEYS[1])"
"""A script that writes a key and deletes it, as those of the ledger do."""


class Deployment:
    """What the checks look at: settings, and what Redis says of itself, asked once."""

    def __init__(self, settings: JobsSettings) -> None:
        self.settings = settings
        self.failure: redis.RedisError | None = None
        """Why Redis is not to be asked again."""
        self._redis: redis.Redis = connect(settings.redis_url, 2.0)
        self._redis.set_retry(Retry(NoBackoff(), 1))  # so that a Redis that hangs is found out soon

    @property
    def redis(self) -> redis.Redis:
        """A client. LedgerUnavailable once Redis could not be reached."""
        if self.failure:
            raise self.failure
        return self._redis

    @cached_property
    def info(self) -> dict[str, Any]:
        """Redis' INFO. LedgerUnavailable where it cannot be reached, or the user may not ask."""
        return dict(self.redis.info())

    def config(self, name: str) -> str | None:
        """A setting of Redis; None where the user may not read it, as with many managed ones."""
        try:
            return str(self.redis.config_get(name)[name])
        except (redis.ResponseError, KeyError):
            return None


def reachable(found: Deployment) -> Iterator[tuple[Level, str]]:
    """Whether Redis answers, takes writes, and is one that the scripts run on."""
    try:
        yield from _kind(found.info)
    except redis.exceptions.NoPermissionError as error:
        yield Level.UNKNOWN, f"cannot be checked: INFO is not permitted: {error}"
    except redis.RedisError as error:
        found.failure = error
        what = "refuses" if isinstance(error, redis.ResponseError) else "cannot be reached"
        yield Level.ERROR, f"{what}: {error}; see redis_url"
        return
    try:
        found.redis.eval(PROBE, 1, f"{KEY_PREFIX}doctor:{uuid.uuid4().hex}")
    except redis.ResponseError as error:
        yield Level.ERROR, f"it does not let scripts write: {error}"


def _kind(info: dict[str, Any]) -> Iterator[tuple[Level, str]]:
    """What Redis says that it is."""
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = str(info.get("valkey_version", info["redis_version"]))
    numbers = tuple(int(part) for part in str(info["redis_version"]).split(".")[:2])
    if numbers < NEEDED_REDIS:
        yield Level.ERROR, f"{name} {version}: 7.0 or newer is needed, for scripts with flags"
    else:
        yield Level.OK, f"{name} {version}"
    if info.get("role", "master") != "master":
        yield Level.ERROR, "it is a replica, which takes no writes; give redis_url its master"
    if info.get("cluster_enabled"):
        yield Level.ERROR, "it is a cluster node; scripts use keys of several slots, so a single Redis is needed"
    if (connections := int(info.get("maxclients", CONNECTIONS))) < CONNECTIONS:
        yield Level.WARNING, f"maxclients is {connections}: connections beyond are refused; set {CONNECTIONS} or more"


def append_only(found: Deployment) -> Iterator[tuple[Level, str]]:
    """Whether acknowledged jobs survive a restart of Redis."""
    info = found.info
    if not info["aof_enabled"]:
        yield Level.ERROR, "the append-only file is off, so that a restart loses acknowledged jobs; set appendonly yes"
        return
    yield Level.OK, "on"
    if info.get("aof_last_write_status", "ok") != "ok":
        yield Level.ERROR, "its last write failed: Redis refuses all others until there is space on its disk"
    if info.get("aof_last_bgrewrite_status", "ok") != "ok":
        yield Level.ERROR, "its last rewrite failed, so that it grows for ever: see Redis' log, its disk and memory"
    fsync = found.config("appendfsync")
    if fsync is None:
        yield Level.UNKNOWN, "appendfsync cannot be checked: CONFIG is not permitted"
    elif fsync == "no":
        yield Level.WARNING, "appendfsync is no: a crash loses more than a second of jobs; set everysec"
    else:
        yield Level.OK, f"appendfsync {fsync}"


def eviction(found: Deployment) -> Iterator[tuple[Level, str]]:
    """Whether Redis may drop jobs when it is full."""
    policy = str(found.info["maxmemory_policy"])
    if policy == "noeviction":
        yield Level.OK, policy
    else:
        yield Level.ERROR, f"maxmemory-policy is {policy}: a full Redis drops jobs; set noeviction"


def clock(found: Deployment) -> Iterator[tuple[Level, str]]:
    """How far this machine's clock is from Redis', which counts deadlines and leases."""
    began = time.time()
    seconds, micros = found.redis.time()
    ended = time.time()
    ahead = (began + ended) / 2 - (seconds + micros / 1e6)
    if abs(ahead) > CLOCK_SECONDS + (ended - began) / 2:
        yield Level.WARNING, f"this machine is {ahead:+.1f} s from Redis' clock; let NTP keep both"
    else:
        yield Level.OK, f"{ahead:+.3f} s from Redis' clock"


def descriptors(_: Deployment) -> Iterator[tuple[Level, str]]:
    """How many connections and files this process may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = hard if hard != resource.RLIM_INFINITY else DESCRIPTORS
    if most < DESCRIPTORS:
        yield Level.WARNING, f"{soft}, {most} at most; {DESCRIPTORS} are needed under load: see ulimit -n, LimitNOFILE"
    else:
        yield Level.OK, f"{soft}, {'any number' if hard == resource.RLIM_INFINITY else hard} at most"


def payload_folder(found: Deployment) -> Iterator[tuple[Level, str]]:
    """Whether the folder of payloads can be used."""
    folder = found.settings.payload_dir
    if folder is None:
        return
    if not os.path.lexists(folder):
        yield _makeable(folder)
        return
    try:
        check_contents(OwnFolder.open(folder))
    except UnusableFolder as error:
        yield Level.ERROR, f"payload_dir {error}"
        return
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        yield Level.ERROR, f"payload_dir {folder} cannot be written by this user (uid {os.geteuid()})"
    else:
        yield Level.OK, f"{folder}, {shutil.disk_usage(folder).free >> 20:,} MiB free"


def _makeable(folder: Path) -> tuple[Level, str]:
    """Whether a folder that is not there can be made, as servers and workers do."""
    above = next(it for it in folder.absolute().parents if os.path.lexists(it))
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        return Level.ERROR, f"payload_dir {folder} cannot be made in {above} by this user (uid {os.geteuid()})"
    return Level.OK, f"{folder} is made at the start, {shutil.disk_usage(above).free >> 20:,} MiB free"


CHECKS: Final[dict[str, Check[Deployment]]] = {
    "redis": reachable,
    "append-only file": append_only,
    "eviction": eviction,
    "clock": clock,
    "descriptors": descriptors,
    "payload folder": payload_folder,
}
"""In the order they are shown."""
