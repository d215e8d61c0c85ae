"""The Lua scripts: what they are put together from, and what it means when one fails."""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib import resources
from typing import Any, Final

import redis

from convlens.jobs.runtime.redis_client import is_unavailable

_COMMON: Final = ("common.lua", "lib/delivery.lua", "lib/results.lua", "lib/records.lua")
"""What every script begins with."""


class ScriptFailed(redis.ResponseError):  # type: ignore[misc]  # redis comes without types
    """A mistake in a script: no state of Redis that passes."""


@functools.cache
def _source(name: str) -> str:
    """A script's text: its first line (the flags), the common parts, the rest, and what all do at their end."""
    folder = resources.files("convlens.jobs.queue") / "lua"
    flags, rest = (folder / f"{name}.lua").read_text().split("\n", 1)
    common = "\n".join((folder / part).read_text() for part in _COMMON)
    return f"{flags}\n{common}\nlocal function run()\n{rest}\nend\nlocal answer = run()\nsettle()\nreturn answer"


class Scripts:
    """Runs scripts by their names, for any thread. Raises redis.RedisError when Redis cannot be reached."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._scripts: dict[str, Callable[..., Any]] = {}

    def __call__(self, name: str, *args: str | int | bytes) -> Any:
        """What the script returns. Raises ScriptFailed for what no later attempt would mend."""
        script = self._scripts.get(name) or self._scripts.setdefault(name, self._redis.register_script(_source(name)))
        try:
            return script(args=[int(arg) if isinstance(arg, int) else arg for arg in args])  # enums as plain numbers
        except redis.ResponseError as error:
            if is_unavailable(error):
                raise
            raise ScriptFailed(f"{name}.lua: {error}") from error
