"""The TOML file and the CONVLENS_* variables: the names that they may have, and the file's values.

Any other name is an error: a mistyped one must not leave a setting at its default, since a server whose `tokens` is
misspelt would admit everybody.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

PREFIX: Final = "CONVLENS_"
FILE_VARIABLE: Final = PREFIX + "CONFIG"

SHARED: Final = frozenset({
    "answered_ttl", "lease", "log_level", "max_attempts", "metrics_address", "payload_dir", "reconcile_interval",
    "redis_url", "result_ttl", "tombstone_ttl",
})  # fmt: skip
"""The settings of every part."""
SERVER: Final = SHARED | {
    "chunk_bytes", "default_timeout", "drain_grace", "health_address", "host", "io_threads", "max_calls",
    "max_connections", "max_image_pixels", "max_images", "max_job_pixels", "max_jobs", "max_known_jobs", "max_passes",
    "max_queued_bytes", "max_queued_pixels", "max_receiving_bytes", "max_request_bytes", "max_result_bytes",
    "max_sending_bytes", "max_stored_bytes", "max_targets", "max_timeout", "max_visualizations", "max_working_bytes",
    "port", "publish", "reflection", "reuse_port", "tenant_burst", "tenant_rate", "tenant_share",
    "tls_cert", "tls_client_ca", "tls_key", "tokens",
}  # fmt: skip
WORKER: Final = SHARED | {
    "celery_control", "consumers", "decoders", "delivery_timeout", "device_timeout", "max_batch_size",
    "max_image_pixels", "model", "name", "working_bytes",
}  # fmt: skip
SETTINGS: Final = SERVER | WORKER | {
    "data_dir", "log", "servers", "tls_dir", "web", "web_allowed_hosts", "web_port", "workers",
}  # fmt: skip
"""The settings of all parts. None of the three can import the others, so they are repeated here; a test compares."""
SECTIONS: Final = {"server": SERVER, "worker": WORKER, "up": SETTINGS}
"""The sections of the file, and what each may set. At the top of the file is what several parts share."""

_OTHER_VARIABLES: Final = frozenset({"config", "server", "token", "tls", "ca", "cert", "key", "connect_timeout"}) | {
    "web_host", "web_max_body_bytes",
}  # fmt: skip
"""Other variables: the file's name, those of the client's command line, and those of the HTTP gateway alone."""
_COMPOSE_VARIABLES: Final = frozenset({"secrets"})
"""Variables of the compose files, which may be exported in a shell that starts other commands, too."""
_SERVICE_LINK: Final = re.compile(r"(^|_)(SERVICE_(HOST|PORT(_.+)?)|PORT(_\d+_(TCP|UDP)(_(PROTO|PORT|ADDR))?)?)$")
"""Variables that Kubernetes sets for each service, so also for one whose name begins with convlens."""


class WrongConfiguration(ValueError):
    """A wrong file or variable; the message says which, why, and the most similar name that is allowed."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A value of the file."""

    value: Any
    source: str
    """FILE:LINE, and the section."""


def read_file(sections: Sequence[str], own: Iterable[str]) -> dict[str, Entry]:
    """Return the settings `own` of the TOML file named by CONVLENS_CONFIG. Raises WrongConfiguration.

    Those at the top are for all parts; those of `sections` come before them, the last section first. `convlens up`
    reads three, and gives servers and workers the same settings, so that these two sections must agree.
    """
    name = os.environ.get(FILE_VARIABLE)
    if name is None:
        return {}
    if not name:
        raise WrongConfiguration(f"{FILE_VARIABLE} is set but empty; name a TOML file, or unset it")
    try:
        text = Path(name).read_text(encoding="utf-8")
        content = tomllib.loads(text)
    except OSError as error:
        raise WrongConfiguration(f"{FILE_VARIABLE}: cannot read {name}: {error.strerror}") from None
    except ValueError as error:
        raise WrongConfiguration(f"{FILE_VARIABLE}: {name} is not TOML in UTF-8: {error}") from None
    top = {key: value for key, value in content.items() if key not in SECTIONS}
    tables = {"": top} | {key: value for key, value in content.items() if key in SECTIONS}
    for section, table in tables.items():
        _check_keys(name, text, section, table)
    own_keys, entries = set(own), dict[str, Entry]()
    for section in ("", *sections):
        for key, value in tables.get(section, {}).items():
            if key in own_keys:
                source = f"{_place(name, text, section, key)}{f' [{section}]' if section else ''}"
                entries[key] = Entry(value, source)
    _check_agreement(name, tables, sections)
    return entries


def _check_keys(name: str, text: str, section: str, table: Any) -> None:
    """Raise WrongConfiguration for a key that is not a setting of its section."""
    if not isinstance(table, dict):
        raise WrongConfiguration(f"{name}: {section!r} is a section: write [{section}], and its settings below")
    known = SECTIONS[section] if section else SETTINGS
    for key, value in table.items():
        if key in known:
            continue
        if key in SETTINGS:
            parts = ", ".join(f"[{part}]" for part, settings in SECTIONS.items() if key in settings)
            remedy = f"it is a setting of {parts}"
        elif isinstance(value, dict) and not section:
            remedy = f"sections are {', '.join(f'[{part}]' for part in SECTIONS)}"
        else:
            remedy = _suggest(key, known)
        where = f" in [{section}]" if section else ""
        raise WrongConfiguration(f"{_place(name, text, section, key)}: unknown key {key!r}{where}; {remedy}")


def _check_agreement(name: str, tables: Mapping[str, Any], sections: Sequence[str]) -> None:
    """Raise WrongConfiguration where `convlens up` finds two values of one setting."""
    if "up" not in sections:
        return
    server, worker, up = (tables.get(section, {}) for section in ("server", "worker", "up"))
    for key in sorted(server.keys() & worker.keys() - up.keys()):
        if server[key] != worker[key]:
            raise WrongConfiguration(
                f"{name}: {key!r} differs in [server] and [worker], and convlens up gives both the same; set it in [up]"
            )


def _place(name: str, text: str, section: str, key: str) -> str:
    """Return FILE:LINE of a key, or FILE where the line is not plain to see."""
    current = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[\s*([\w.\"' -]+?)\s*\]", line):
            current = header[1].strip("\"'")
            if not section and current == key:
                return f"{name}:{number}"
        elif current == section and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*[.=]", line):
            return f"{name}:{number}"
    return name


def check_variables(variables: Mapping[str, str]) -> None:
    """Raise WrongConfiguration for a CONVLENS_* variable that no part of Convlens reads."""
    for variable in sorted(variables):
        name = variable.upper().removeprefix(PREFIX)
        if name == variable.upper() or name.lower() in SETTINGS | _OTHER_VARIABLES | _COMPOSE_VARIABLES:
            continue
        if not _SERVICE_LINK.search(name):
            raise WrongConfiguration(f"unknown variable {variable}; {_suggest(name.lower(), SETTINGS, PREFIX)}")


def _suggest(name: str, known: Iterable[str], prefix: str = "") -> str:
    """Suggest the setting that may have been meant."""
    similar = difflib.get_close_matches(name.lower().replace("-", "_"), sorted(known), n=1, cutoff=0.5)
    hint = f"did you mean {prefix}{similar[0].upper() if prefix else similar[0]}? " if similar else ""
    return hint + "--help lists all settings"
