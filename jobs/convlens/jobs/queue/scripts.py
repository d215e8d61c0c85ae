"""The Lua scripts: assembles each from its file and those that it includes, and runs it with options by name."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from importlib import resources
from typing import Any, Final

import redis

from convlens.jobs.runtime.redis_client import is_unavailable

_BASE: Final = "-- include: script keys poison counters"
"""What every script includes."""
_to_json: Final = json.JSONEncoder(separators=(",", ":")).encode


class ScriptFailed(redis.ResponseError):  # type: ignore[misc]  # redis comes without types
    """A mistake in a script: no state of Redis that passes."""


@functools.cache
def _source(name: str) -> str:
    """A script's text: its first line (the flags), the files of lua/lib that it needs, each once, and its own text."""
    folder = resources.files("convlens.jobs.queue") / "lua"
    flags, script = (folder / f"{name}.lua").read_text().split("\n", 1)
    library: dict[str, str] = {}

    def include(text: str) -> None:
        for part in " ".join(re.findall("^-- include: (.+)$", text, re.MULTILINE)).split():
            if part not in library:
                include(source := (folder / "lib" / f"{part}.lua").read_text())
                library[part] = source

    include(f"{_BASE}\n{script}")
    run = f"local function run()\n{script}\nend\nlocal reply = run()"
    return "\n".join([flags, *library.values(), run, "write_counters()", "return reply"])


class Scripts:
    """Runs scripts by their names, for any thread. Raises redis.RedisError when Redis cannot be reached."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._scripts: dict[str, Callable[..., Any]] = {}

    def __call__(self, name: str, *data: bytes, **options: Any) -> Any:
        """Run a script with these options (JSON values) and bytes; return its reply.

        Raises ScriptFailed for what no later attempt would mend.
        """
        script = self._scripts.get(name) or self._scripts.setdefault(name, self._redis.register_script(_source(name)))
        try:
            return script(args=[_to_json(options), *data])
        except redis.ResponseError as error:
            if is_unavailable(error):
                raise
            raise ScriptFailed(f"{name}.lua: {error}") from error
