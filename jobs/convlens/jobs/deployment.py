"""Checks of what server and workers share: Redis' configuration, clocks, descriptors, the payload folder."""

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

MIN_REDIS: Final = (7, 0)
"""The first version whose scripts have flags (allow-oom); every Valkey has them."""
MIN_DESCRIPTORS: Final = 4096
"""One for each connection, and for each file of a payload that is being written or read."""
MIN_CONNECTIONS: Final = 256
"""Connections to Redis that a server and a few workers may open."""
MAX_CLOCK_OFFSET: Final = 1.0
"""Seconds."""
JOB_BYTES: Final = 4096
"""Memory that a live job takes in Redis beside its payloads, indexes included."""

PROBE: Final = "redis.call('set', KEYS[1], '', 'PX', 1000) return redis.call('del', KEYS[1])"
"""A script that writes a key and deletes it, as those of the queue do."""


class Deployment:
    """What the checks examine: the settings, and Redis' INFO, read once."""

    def __init__(self, settings: JobsSettings) -> None:
        self.settings = settings
        self.is_unreachable = False
        """True once Redis could not be reached: it is not called again."""
        self._redis: redis.Redis = connect(settings.redis_url, 2.0)
        self._redis.set_retry(Retry(NoBackoff(), 1))  # so that a Redis that hangs is reported soon

    @property
    def redis(self) -> redis.Redis:
        """A client. Raises RedisUnavailable once Redis could not be reached."""
        if self.is_unreachable:
            raise redis.ConnectionError("see the finding about redis")
        return self._redis

    @cached_property
    def info(self) -> dict[str, Any]:
        """Redis' INFO. Raises RedisUnavailable where it cannot be reached, or its user may not read it."""
        return dict(self.redis.info())

    def config(self, name: str) -> str | None:
        """Return a setting of Redis; None where the user may not read it, as with many managed ones."""
        try:
            return str(self.redis.config_get(name)[name])
        except (redis.ResponseError, KeyError):
            return None


def check_redis(deployment: Deployment) -> Iterator[tuple[Level, str]]:
    """Check that Redis replies, accepts writes, and runs the queue's scripts."""
    try:
        yield from _check_server(deployment.info)
    except redis.exceptions.NoPermissionError as error:
        yield Level.UNKNOWN, f"cannot be checked: INFO is not permitted: {error}"
    except redis.RedisError as error:
        deployment.is_unreachable = True
        problem = "refuses" if isinstance(error, redis.ResponseError) else "cannot be reached"
        yield Level.ERROR, f"{problem}: {error}; see redis_url"
        return
    try:
        deployment.redis.eval(PROBE, 1, f"{KEY_PREFIX}doctor:{uuid.uuid4().hex}")
    except redis.ResponseError as error:
        yield Level.ERROR, f"it does not let scripts write: {error}"


def _check_server(info: dict[str, Any]) -> Iterator[tuple[Level, str]]:
    """Check version, role and limits of Redis by its INFO."""
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = str(info.get("valkey_version", info["redis_version"]))
    numbers = tuple(int(part) for part in str(info["redis_version"]).split(".")[:2])
    if numbers < MIN_REDIS:
        yield Level.ERROR, f"{name} {version}: 7.0 or newer is needed, for scripts with flags"
    else:
        yield Level.OK, f"{name} {version}"
    if info.get("role", "master") != "master":
        yield Level.ERROR, "it is a replica, which takes no writes; give redis_url its master"
    if info.get("cluster_enabled"):
        yield Level.ERROR, "it is a cluster node; scripts use keys of several slots, so a single Redis is needed"
    if (connections := int(info.get("maxclients", MIN_CONNECTIONS))) < MIN_CONNECTIONS:
        message = f"maxclients is {connections}: connections beyond are refused; set {MIN_CONNECTIONS} or more"
        yield Level.WARNING, message


def check_append_only_file(deployment: Deployment) -> Iterator[tuple[Level, str]]:
    """Check that acknowledged jobs survive a restart of Redis."""
    info = deployment.info
    if not info["aof_enabled"]:
        yield Level.ERROR, "the append-only file is off, so that a restart loses acknowledged jobs; set appendonly yes"
        return
    yield Level.OK, "on"
    if info.get("aof_last_write_status", "ok") != "ok":
        yield Level.ERROR, "its last write failed: Redis refuses all others until there is space on its disk"
    if info.get("aof_last_bgrewrite_status", "ok") != "ok":
        yield Level.ERROR, "its last rewrite failed, so that it grows for ever: see Redis' log, its disk and memory"
    fsync = deployment.config("appendfsync")
    if fsync is None:
        yield Level.UNKNOWN, "appendfsync cannot be checked: CONFIG is not permitted"
    elif fsync == "no":
        yield Level.WARNING, "appendfsync is no: a crash loses more than a second of jobs; set everysec"
    else:
        yield Level.OK, f"appendfsync {fsync}"


def check_eviction(deployment: Deployment) -> Iterator[tuple[Level, str]]:
    """Check that Redis does not evict jobs when it is full."""
    policy = str(deployment.info["maxmemory_policy"])
    if policy == "noeviction":
        yield Level.OK, policy
    else:
        yield Level.ERROR, f"maxmemory-policy is {policy}: a full Redis drops jobs; set noeviction"


def check_clock(deployment: Deployment) -> Iterator[tuple[Level, str]]:
    """Compare this machine's clock with Redis', by which deadlines and leases are counted."""
    before = time.time()
    seconds, micros = deployment.redis.time()
    after = time.time()
    offset = (before + after) / 2 - (seconds + micros / 1e6)
    if abs(offset) > MAX_CLOCK_OFFSET + (after - before) / 2:
        yield Level.WARNING, f"this machine is {offset:+.1f} s from Redis' clock; let NTP keep both"
    else:
        yield Level.OK, f"{offset:+.3f} s from Redis' clock"


def check_descriptors(_: Deployment) -> Iterator[tuple[Level, str]]:
    """Check how many connections and files this process may open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = hard if hard != resource.RLIM_INFINITY else MIN_DESCRIPTORS
    if most < MIN_DESCRIPTORS:
        remedy = f"{MIN_DESCRIPTORS} are needed under load: see ulimit -n, LimitNOFILE"
        yield Level.WARNING, f"{soft}, {most} at most; {remedy}"
    else:
        yield Level.OK, f"{soft}, {'any number' if hard == resource.RLIM_INFINITY else hard} at most"


def check_payload_folder(deployment: Deployment) -> Iterator[tuple[Level, str]]:
    """Check that the folder of payloads can be used."""
    folder = deployment.settings.payload_dir
    if folder is None:
        return
    if not os.path.lexists(folder):
        yield _check_parent(folder)
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


def _check_parent(folder: Path) -> tuple[Level, str]:
    """Check that a missing folder can be made, as servers and workers do at their start."""
    parent = next(path for path in folder.absolute().parents if os.path.lexists(path))
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        return Level.ERROR, f"payload_dir {folder} cannot be made in {parent} by this user (uid {os.geteuid()})"
    return Level.OK, f"{folder} is made at the start, {shutil.disk_usage(parent).free >> 20:,} MiB free"


CHECKS: Final[dict[str, Check[Deployment]]] = {
    "redis": check_redis,
    "append-only file": check_append_only_file,
    "eviction": check_eviction,
    "clock": check_clock,
    "descriptors": check_descriptors,
    "payload folder": check_payload_folder,
}
"""In the order in which they are reported."""
