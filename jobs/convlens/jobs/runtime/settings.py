"""The settings that server and worker share; each is a flag, a CONVLENS_* variable or a line of a TOML file."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal
from urllib.parse import parse_qs, urlsplit

from pydantic import BeforeValidator, Field, field_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from redis.connection import parse_url

from convlens.jobs.runtime.configuration import read_file

REDIS_FILES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_ca_path")
"""Options of a rediss:// URL that name files."""

_REDIS_OPTIONS: Final = frozenset({
    "client_name", "health_check_interval", "max_connections", "protocol", "retry_on_timeout", "socket_connect_timeout",
    "socket_keepalive", "socket_timeout",
})  # fmt: skip
_REDIS_TLS_OPTIONS: Final = frozenset({
    *REDIS_FILES, "ssl_cert_reqs", "ssl_check_hostname", "ssl_ciphers", "ssl_min_version", "ssl_password",
})  # fmt: skip
"""Options of a URL behind its question mark. Others are unknown to the client, break its replies, or are not read by
Celery, which would then use another database or no password."""


def _refuse_empty(value: object) -> object:
    """Refuse an empty path, most likely from a variable without a value: it would mean the working directory."""
    if value == "":
        raise ValueError("is set but empty; name a file or folder, or leave the setting out")
    return value


def _check_redis_url(url: str) -> None:
    """Raise ValueError for a path or option of a Redis URL that would be ignored or fail at the first command."""
    parts = urlsplit(url)
    if not re.fullmatch(r"(/\d*)?", parts.path):
        raise ValueError("has a path that is no number of a database, such as /0")
    options = parse_qs(parts.query, keep_blank_values=True)
    allowed = _REDIS_OPTIONS | (_REDIS_TLS_OPTIONS if parts.scheme == "rediss" else set())
    for name in options:
        if name == "db":
            raise ValueError("names the database by db=…; give it as the path, such as /0")
        if name not in allowed:
            shown = f" {name!r}" if name.isidentifier() else ""  # another may be the rest of a password
            raise ValueError(f"has the unknown option{shown}; allowed: {', '.join(sorted(allowed))}")
    try:
        parse_url(url)
    except ValueError as error:
        raise ValueError(f"cannot be read: {error}") from None
    for name, (path, *_) in options.items():
        if name in REDIS_FILES and not os.access(path, os.R_OK):
            raise ValueError(f"{name}: there is no {path}, or it may not be read")


LogLevel = Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(lambda level: str(level).upper())]
NamedPath = Annotated[Path, BeforeValidator(_refuse_empty)]
"""A path that is not empty."""
Names = Annotated[
    list[str], NoDecode, BeforeValidator(lambda names: shlex.split(names) if isinstance(names, str) else names)
]
"""Names; those of a variable are separated by blanks, and quoted as in a shell."""


class JobsSettings(BaseSettings):
    """The settings that server and worker share. Flags take precedence over variables, these over the TOML file."""

    model_config = SettingsConfigDict(env_prefix="CONVLENS_")

    SECTIONS: ClassVar[Sequence[str]] = ()
    """The sections of the TOML file that are read, the most important last."""
    PANELS: ClassVar[dict[str, Sequence[str]]] = {
        "Redis and payloads": ("redis_url", "payload_dir"),
        "Jobs": ("lease", "max_attempts", "result_ttl", "answered_ttl", "tombstone_ttl", "reconcile_interval"),
        "Logs and metrics": ("log_level", "metrics_address"),
    }
    """The settings that this class adds to those of its bases, by panel of --help."""

    redis_url: str = Field("redis://127.0.0.1:6379/0", description="Redis or Valkey, by a redis:// or rediss:// URL")
    payload_dir: NamedPath | None = Field(
        None,
        description="folder for images and tensors alone, empty at first or made, shared by servers and workers of one "
        "user; none: they live in Redis",
    )
    lease: float = Field(15.0, gt=0, description="seconds without a heartbeat after which jobs go to another worker")
    max_attempts: int = Field(3, ge=1, description="times a job is started before it is FAILED")
    result_ttl: float = Field(3600.0, gt=0, description="seconds a result is kept after its job ended")
    answered_ttl: float = Field(
        60.0, ge=0, description="seconds that the id of a job not kept is known after its last caller left"
    )
    tombstone_ttl: float = Field(86400.0, ge=0, description="seconds an expired job's id is remembered after that")
    reconcile_interval: float = Field(1.0, gt=0, description="seconds between searches for lost messages and workers")
    metrics_address: str = Field(
        "", pattern=r"^(.+:\d+)?$", description="a plaintext HOST:PORT that answers Prometheus and nothing else; port 0"
        " picks a free one and logs it; none: no metrics"
    )  # fmt: skip
    log_level: LogLevel = Field("INFO", description="DEBUG, INFO, WARNING or ERROR")

    @field_validator("redis_url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        """Refuse, without repeating it, a URL that a client could not read, or that names missing files."""
        if url == cls.model_fields["redis_url"].default:
            return url
        try:
            parts = urlsplit(url)
            is_valid = parts.scheme in {"redis", "rediss"} and parts.hostname and parts.port != 0
        except ValueError:
            is_valid = False
        if not is_valid:
            raise ValueError("is no redis:// or rediss:// URL; a password has / as %2F, # as %23, ? as %3F, @ as %40")
        _check_redis_url(url)
        return url

    @classmethod
    def panels(cls) -> dict[str, list[str]]:
        """Return the settings by panel of --help, in their order; those of the class itself are first."""
        panels: dict[str, list[str]] = {}
        for base in cls.__mro__:
            for panel, names in base.__dict__.get("PANELS", {}).items():
                shown = {name for others in panels.values() for name in others}  # `convlens up` has some of two bases
                panels.setdefault(panel, []).extend(name for name in names if name not in shown)
        return panels

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic's
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags and arguments, then CONVLENS_* variables, then the TOML file that CONVLENS_CONFIG names."""
        entries = read_file(cls.SECTIONS, settings_cls.model_fields)
        file = InitSettingsSource(settings_cls, {name: entry.value for name, entry in entries.items()})
        return init_settings, env_settings, file
