"""Checks a server's deployment: certificates, tokens, exposure, memory for its bounds, models and versions."""

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
from convlens.server.auth.reloading_file import UnusableFile
from convlens.server.auth.tls import load_certificates
from convlens.server.auth.tokens import Tokens
from convlens.server.settings import ServerSettings, is_loopback

VERSION: Final = metadata.version("convlens-server")
EXPIRY_DAYS: Final = 14
"""A certificate that expires within this time is a warning."""
MIB: Final = 1 << 20


class ServerDeployment(Deployment):
    """The settings, Redis and models that the checks examine."""

    def __init__(self, settings: ServerSettings) -> None:
        super().__init__(settings)
        self.server = settings

    @cached_property
    def live(self) -> model_registry.LiveModels:
        """The models that workers serve."""
        return model_registry.read_live_models(self.redis)


def memory(deployed: ServerDeployment) -> Iterator[tuple[Level, str]]:
    """Check that the bytes which the bounds admit fit into Redis and the payload folder."""
    settings = deployed.server
    payloads, records = settings.max_queued_bytes + settings.max_stored_bytes, settings.max_jobs * JOB_BYTES
    admitted = f"max_queued_bytes + max_stored_bytes are {payloads // MIB:,} MiB"
    folder = settings.payload_dir
    if folder and folder.is_dir():
        total = shutil.disk_usage(folder).total
        message = f"{admitted}, the file system of payload_dir has {total // MIB:,} MiB"
        yield (Level.ERROR, f"{message}; lower them") if total < payloads else (Level.OK, message)
    in_redis = records + (0 if folder else payloads)
    needed = f"Redis may have to hold {in_redis // MIB:,} MiB ({'' if folder else f'{admitted}, and '}max_jobs records)"
    most, machine = int(deployed.info["maxmemory"]), int(deployed.info.get("total_system_memory", 0))
    message = f"{needed}, its maxmemory is {most // MIB:,} MiB (0: any), its machine has {machine // MIB:,}"
    is_short = 0 < most < in_redis or 0 < machine < max(most, in_redis)
    yield (Level.ERROR, f"{message}; give it more or lower the bounds") if is_short else (Level.OK, message)


def certificates(deployed: ServerDeployment) -> Iterator[tuple[Level, str]]:
    """Check that the TLS files can be read, match, and do not expire soon."""
    try:
        files = load_certificates(deployed.server)
    except UnusableFile as error:
        yield Level.ERROR, str(error)
        return
    if files is None:
        return
    loaded = files.value
    for setting, chain in (("tls_cert", loaded.chain), ("tls_client_ca", loaded.client_ca)):
        for certificate in chain:
            yield _check_validity(setting, certificate)
    yield _check_names(loaded.chain[0])


def _check_validity(setting: str, certificate: x509.Certificate) -> tuple[Level, str]:
    """Check the validity period of a certificate."""
    name = certificate.subject.rfc4514_string() or f"serial {certificate.serial_number:x}"
    now = dt.datetime.now(dt.UTC)
    days = (certificate.not_valid_after_utc - now).days
    if days < 0:
        return Level.ERROR, f"{setting}: {name} expired on {certificate.not_valid_after_utc:%F}; replace it"
    if certificate.not_valid_before_utc > now:
        return Level.ERROR, f"{setting}: {name} is valid only from {certificate.not_valid_before_utc:%F %T} UTC on"
    return Level.WARNING if days < EXPIRY_DAYS else Level.OK, f"{setting}: {name} expires in {days} days"


def _check_names(certificate: x509.Certificate) -> tuple[Level, str]:
    """Check that the certificate names hosts, and list them."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return Level.ERROR, "tls_cert: it has no subjectAltName, so no client accepts it"
    return Level.OK, f"tls_cert: valid for {', '.join(str(name.value) for name in names)}"


def tokens(deployed: ServerDeployment) -> Iterator[tuple[Level, str]]:
    """Check that the tokens file can be used."""
    if deployed.server.tokens is None:
        return
    try:
        tenants = Tokens(deployed.server.tokens).tenants()
    except UnusableFile as error:
        yield Level.ERROR, str(error)
        return
    if not tenants:
        yield Level.WARNING, f"{deployed.server.tokens} holds no token: every call is rejected; see convlens token new"
    else:
        yield Level.OK, f"{sum(tenants.values())} tokens of {len(tenants)} tenants"


def exposure(deployed: ServerDeployment) -> Iterator[tuple[Level, str]]:
    """Check encryption and authentication where other machines can reach the server."""
    settings = deployed.server
    host = settings.publish or settings.host
    if is_loopback(host):
        yield Level.OK, f"{host}: reachable from this machine only"
        return
    if settings.tls_cert is None:
        yield Level.WARNING, f"traffic on {host} is not encrypted, tokens included: see tls_cert and tls_key"
    if settings.tokens is None and settings.tls_client_ca is None:
        yield Level.WARNING, f"everyone who can reach {host} has every role: see tokens and tls_client_ca"


def models(deployed: ServerDeployment) -> Iterator[tuple[Level, str]]:
    """List the models served, and those that workers refuse to serve."""
    names = ", ".join(f"{name} ({card.workers})" for name, card in sorted(deployed.live.models.items()))
    yield (Level.OK, f"served (workers): {names}") if names else (Level.WARNING, "no worker serves any model")
    for model in deployed.live.refused:
        yield Level.WARNING, f"{model.worker} refuses to serve {model.name}: {model.reason}"


def versions(deployed: ServerDeployment) -> Iterator[tuple[Level, str]]:
    """Check that the versions of server, workers and the local SDK are compatible."""
    others = {f"workers of {card.name}": card.worker_version for card in deployed.live.models.values()}
    with contextlib.suppress(metadata.PackageNotFoundError):
        others["the SDK here"] = metadata.version("convlens-client")
    yield Level.OK, f"server {VERSION}"
    for component, version in others.items():
        yield check_version(component, version)


def check_version(component: str, version: str) -> tuple[Level, str]:
    """Check that a component is at most one minor version from this server."""
    try:
        theirs, ours = ([int(part) for part in text.split(".")[:2]] for text in (version, VERSION))
    except ValueError:
        return Level.WARNING, f"{component}: unknown version {version!r}; the server here is {VERSION}"
    if theirs[0] != ours[0] or abs(theirs[1] - ours[1]) > 1:
        return (
            Level.WARNING,
            f"{component}: {version}, server {VERSION}: more than one minor version apart is not tested",
        )
    return Level.OK, f"{component}: {version}"


STARTUP_CHECKS: Final[dict[str, Check[ServerDeployment]]] = {
    **deployment.CHECKS,
    "memory": memory,
    "certificates": certificates,
    "exposure": exposure,
    "versions": versions,
}
"""Run when a server starts, when there may be no worker yet."""
CHECKS: Final[dict[str, Check[ServerDeployment]]] = STARTUP_CHECKS | {"tokens": tokens, "models": models}
"""Run by `convlens doctor`, in this order."""
