"""Checks of a server: its certificates and tokens, who reaches it, memory for its bounds, the models and versions."""

from __future__ import annotations

import contextlib
import datetime as dt
import shutil
from collections.abc import Iterator
from functools import cached_property
from importlib import metadata
from typing import Final

from cryptography import x509

from convlens.jobs import deployment, model_registry
from convlens.jobs.deployment import JOB_BYTES, Deployment
from convlens.jobs.runtime.checks import Check, Level
from convlens.server.auth.reloading_file import Unusable
from convlens.server.auth.tls import watched_certificates
from convlens.server.auth.tokens import Tokens
from convlens.server.settings import ServerSettings, is_loopback

VERSION: Final = metadata.version("convlens-server")
EXPIRY_DAYS: Final = 14
"""A certificate that is good for less is a warning."""
MIB: Final = 1 << 20


class ServerDeployment(Deployment):
    """What the checks look at."""

    def __init__(self, settings: ServerSettings) -> None:
        super().__init__(settings)
        self.server = settings

    @cached_property
    def live(self) -> model_registry.LiveModels:
        """What workers serve."""
        return model_registry.read_live_models(self.redis)


def memory(found: ServerDeployment) -> Iterator[tuple[Level, str]]:
    """Whether what the bounds admit fits where it is kept."""
    settings = found.server
    payloads, records = settings.max_queued_bytes + settings.max_stored_bytes, settings.max_jobs * JOB_BYTES
    admitted = f"max_queued_bytes + max_stored_bytes are {payloads // MIB:,} MiB"
    folder = settings.payload_dir
    if folder and folder.is_dir():
        total = shutil.disk_usage(folder).total
        if total < payloads:
            yield Level.ERROR, f"{admitted}, the file system of payload_dir has {total // MIB:,} MiB; lower them"
        else:
            yield Level.OK, f"{admitted}, the file system of payload_dir has {total // MIB:,} MiB"
    in_redis = records + (0 if folder else payloads)
    needed = f"Redis may have to hold {in_redis // MIB:,} MiB ({'' if folder else f'{admitted}, and '}max_jobs records)"
    most, machine = int(found.info["maxmemory"]), int(found.info.get("total_system_memory", 0))
    if 0 < most < in_redis:
        yield Level.ERROR, f"{needed}, its maxmemory is {most // MIB:,} MiB; raise it or lower the bounds"
    elif machine and max(most, in_redis) > machine:
        yield (
            Level.ERROR,
            f"{needed}, its maxmemory is {most // MIB:,} MiB (0: any), its machine has {machine // MIB:,}",
        )
    else:
        yield Level.OK, f"{needed}, its maxmemory is {most // MIB:,} MiB (0: any), its machine has {machine // MIB:,}"


def certificates(found: ServerDeployment) -> Iterator[tuple[Level, str]]:
    """Whether the files of TLS can be read, fit each other, and are good for a while."""
    try:
        files = watched_certificates(found.server)
    except Unusable as error:
        yield Level.ERROR, str(error)
        return
    if files is None:
        return
    now = files.value
    for setting, certificate in [("tls_cert", it) for it in now.chain] + [
        ("tls_client_ca", it) for it in now.client_ca
    ]:
        yield _validity(setting, certificate)
    yield _names(now.chain[0])


def _validity(setting: str, certificate: x509.Certificate) -> tuple[Level, str]:
    """For how long a certificate is good."""
    who = certificate.subject.rfc4514_string() or f"serial {certificate.serial_number:x}"
    now = dt.datetime.now(dt.UTC)
    days = (certificate.not_valid_after_utc - now).days
    if days < 0:
        return Level.ERROR, f"{setting}: {who} expired on {certificate.not_valid_after_utc:%F}; replace it"
    if certificate.not_valid_before_utc > now:
        return Level.ERROR, f"{setting}: {who} is good only from {certificate.not_valid_before_utc:%F %T} UTC on"
    return Level.WARNING if days < EXPIRY_DAYS else Level.OK, f"{setting}: {who} expires in {days} days"


def _names(certificate: x509.Certificate) -> tuple[Level, str]:
    """The names that clients may reach the server by."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return Level.ERROR, "tls_cert: it has no subjectAltName, so that no client trusts it by any name"
    return Level.OK, f"tls_cert: of {', '.join(str(name.value) for name in found)}"


def tokens(found: ServerDeployment) -> Iterator[tuple[Level, str]]:
    """Whether the tokens file can be used."""
    if found.server.tokens is None:
        return
    try:
        tenants = Tokens(found.server.tokens).tenants()
    except Unusable as error:
        yield Level.ERROR, str(error)
        return
    if not tenants:
        yield Level.WARNING, f"{found.server.tokens} holds no token: nobody may call; see convlens token new"
    else:
        yield Level.OK, f"{sum(tenants.values())} of {len(tenants)} tenants"


def exposure(found: ServerDeployment) -> Iterator[tuple[Level, str]]:
    """What others could do on a network that is not this machine's own."""
    settings = found.server
    host = settings.publish or settings.host
    if is_loopback(host):
        yield Level.OK, f"{host}: this machine alone"
        return
    if settings.tls_cert is None:
        yield Level.WARNING, f"on {host} all is in the clear, tokens too: see tls_cert and tls_key"
    if settings.tokens is None and settings.tls_client_ca is None:
        yield Level.WARNING, f"whoever reaches {host} may ask for anything: see tokens and tls_client_ca"


def models(found: ServerDeployment) -> Iterator[tuple[Level, str]]:
    """What is served, and what workers refused to serve."""
    names = ", ".join(f"{name} ({card.workers})" for name, card in sorted(found.live.models.items()))
    yield (Level.OK, f"served, by so many workers: {names}") if names else (Level.WARNING, "no worker serves any model")
    for it in found.live.refused:
        yield Level.WARNING, f"{it.name} is refused by {it.worker}: {it.reason}"


def versions(found: ServerDeployment) -> Iterator[tuple[Level, str]]:
    """Whether server, workers and the SDK of this machine fit each other."""
    others = {f"workers of {card.name}": card.worker_version for card in found.live.models.values()}
    with contextlib.suppress(metadata.PackageNotFoundError):
        others["the SDK here"] = metadata.version("convlens-client")
    yield Level.OK, f"server {VERSION}"
    for who, version in others.items():
        yield versions_fit(who, version)


def versions_fit(who: str, version: str) -> tuple[Level, str]:
    """Whether another part's version is at most a minor one from this one's."""
    try:
        theirs, ours = ([int(part) for part in it.split(".")[:2]] for it in (version, VERSION))
    except ValueError:
        return Level.WARNING, f"{who}: of no known version; the server here is {VERSION}"
    if theirs[0] != ours[0] or abs(theirs[1] - ours[1]) > 1:
        return Level.WARNING, f"{who}: {version}, server {VERSION}: more than one minor version apart is not tested"
    return Level.OK, f"{who}: {version}"


AT_START: Final[dict[str, Check[ServerDeployment]]] = {
    **deployment.CHECKS,
    "memory": memory,
    "certificates": certificates,
    "exposure": exposure,
    "versions": versions,
}
"""What a server looks at as it starts, when there may be no worker yet."""
CHECKS: Final[dict[str, Check[ServerDeployment]]] = AT_START | {"tokens": tokens, "models": models}
"""All, in the order they are shown."""
