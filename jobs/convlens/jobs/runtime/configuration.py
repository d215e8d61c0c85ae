"""The TOML file and the CONVLENS_* variables: the names that they may have. Any other name is an error.

A mistyped name must not leave a setting at its default: a server whose `tokens` is misspelt would admit everybody.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

PREFIX: Final = "CONVLENS_"
FILE_VARIABLE: Final = PREFIX + "CONFIG"

SETTINGS: Final = frozenset({
    "answered_ttl", "celery_control", "chunk_bytes", "consumers", "data_dir", "decoders", "default_timeout",
    "delivery_timeout", "device_timeout", "drain_grace", "health_address", "host", "io_threads", "lease", "log_file",
    "log_level",
    "max_attempts", "max_batch_size", "max_calls", "max_connections", "max_image_pixels", "max_images",
    "max_job_pixels", "max_jobs", "max_known_jobs", "max_passes", "max_queued_bytes", "max_queued_pixels",
    "max_receiving_bytes", "max_request_bytes", "max_result_bytes", "max_sending_bytes", "max_stored_bytes",
    "max_targets", "max_timeout", "max_visualizations", "max_working_bytes", "metrics_address", "model", "name",
    "payload_dir", "port", "publish", "reconcile_interval", "redis_url", "reflection", "result_ttl", "reuse_port",
    "servers", "stream_jobs", "tenant_burst", "tenant_rate", "tenant_share", "tls_cert", "tls_client_ca", "tls_dir",
    "tls_key", "tokens", "tombstone_ttl", "workers", "working_bytes",
})  # fmt: skip
"""The settings of server, worker and `convlens up`, which share one file, though each reads its own settings only. None
of the three can import the others, so they are repeated here; a test compares."""

_OTHER_VARIABLES: Final = frozenset({"config", "server", "token", "tls", "ca", "cert", "key", "connect_timeout"})
"""Other variables: the file's name, and those of the client's command line."""
_COMPOSE_VARIABLES: Final = frozenset({"secrets"})
"""Variables of the compose files, which may be exported in a shell that starts other commands, too."""
_SERVICE_LINK: Final = re.compile(r"(^|_)(SERVICE_(HOST|PORT(_.+)?)|PORT(_\d+_(TCP|UDP)(_(PROTO|PORT|ADDR))?)?)$")
"""Variables that Kubernetes sets for each service, so also for one whose name begins with convlens."""


class WrongConfiguration(ValueError):
    """A wrong file or variable; the message says which, why, and the most similar name that is allowed."""


def read_file(own: Iterable[str]) -> dict[str, Any]:
    """Return the settings `own` of the TOML file named by CONVLENS_CONFIG. Raises WrongConfiguration."""
    name = os.environ.get(FILE_VARIABLE)
    if name is None:
        return {}
    if not name:
        raise WrongConfiguration(f"{FILE_VARIABLE} is set but empty; name a TOML file, or unset it")
    try:
        content = tomllib.loads(Path(name).read_text(encoding="utf-8"))
    except OSError as error:
        raise WrongConfiguration(f"{FILE_VARIABLE}: cannot read {name}: {error.strerror}") from None
    except ValueError as error:
        raise WrongConfiguration(f"{FILE_VARIABLE}: {name} is not TOML in UTF-8: {error}") from None
    known = SETTINGS | set(own)
    for key, value in content.items():
        if key not in known:
            remedy = "settings are not in tables" if isinstance(value, dict) else _suggest(key, known)
            raise WrongConfiguration(f"{name}: unknown key {key!r}; {remedy}")
    return {key: content[key] for key in own if key in content}


def check_variables(variables: Mapping[str, str], own: Iterable[str]) -> None:
    """Raise WrongConfiguration for a CONVLENS_* variable that no part of Convlens reads."""
    known = SETTINGS | set(own)
    for variable in sorted(variables):
        name = variable.upper().removeprefix(PREFIX)
        if name == variable.upper() or name.lower() in known | _OTHER_VARIABLES | _COMPOSE_VARIABLES:
            continue
        if not _SERVICE_LINK.search(name):
            raise WrongConfiguration(f"unknown variable {variable}; {_suggest(name.lower(), known, PREFIX)}")


def _suggest(name: str, known: Iterable[str], prefix: str = "") -> str:
    """Suggest the setting that may have been meant."""
    similar = difflib.get_close_matches(name.lower().replace("-", "_"), sorted(known), n=1, cutoff=0.5)
    hint = f"did you mean {prefix}{similar[0].upper() if prefix else similar[0]}? " if similar else ""
    return hint + "--help lists all settings"
