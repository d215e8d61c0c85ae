"""Validates requests before anything is queued: each error names its field, what is wrong, and what is allowed."""

from __future__ import annotations

import re
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from blake3 import blake3

from convlens.jobs.model_registry import LiveModels
from convlens.jobs.queue.new_job import NewJob
from convlens.jobs.queue.record import Priority
from convlens.jobs.request.plan import JobPlan
from convlens.jobs.request.resolve import resolve_serialized
from convlens.server.image_validation import count_pixels
from convlens.server.requests import JobRequest
from convlens.server.settings import ServerSettings
from convlens.server.status import RETRY_SECONDS, StatusError, invalid_field
from convlens.v1 import model_pb2, spec_pb2
from convlens.v1.reasons import Reason

RECORD_BYTES: Final = 2500
"""Size in Redis of a live job's record and its index entries, without its spec and images."""
IMAGE_RECORD_BYTES: Final = 330
"""Size of the index entries of each of its images."""
_PRIORITIES: Final = frozenset(spec_pb2.Priority.values())
_START: Final = "; start one with `convlens worker`"


@dataclass(frozen=True, slots=True)
class Submission:
    """What a call says of the job beside its spec."""

    job_id: str
    request_id: str
    tenant: str
    keep: bool = False
    """True for a job that runs whether anybody waits for it or not."""
    time_remaining: float | None = None
    """Seconds until the call's deadline, which is the job's, too; None without one."""
    is_unary: bool = False
    """True where the result must fit into one message."""

    @classmethod
    def of(
        cls,
        request: JobRequest,
        tenant: str,
        *,
        keep: bool = False,
        time_remaining: float | None = None,
        is_unary: bool = False,
    ) -> Submission:
        """Derive the job's id from the request's `request_id`. StatusError where that is no UUID."""
        request_id = canonical_request_id(request.message.request_id)
        return cls(make_job_id(request_id, tenant), request_id, tenant, keep, time_remaining, is_unary)


def validate(
    request: JobRequest,
    submission: Submission,
    live: LiveModels,
    settings: ServerSettings,
    known_names: Collection[str] = (),
) -> NewJob:
    """Return the job that `request` describes. Raises StatusError or SpecError. Modifies the request's spec."""
    spec: spec_pb2.JobSpec = request.message.spec
    card = find_model(spec.model, live, "spec.model", known_names)
    spec.model = card.name
    _check_count("spec.images", len(spec.images), settings.max_images)
    _check_count("spec.visualizations", len(spec.visualizations), settings.max_visualizations)
    tenant_key = blake3(submission.tenant.encode()).digest()  # equal images of two tenants have different digests
    pixels = count_pixels(spec.images, request.images, settings)
    images = [(blake3(data, key=tenant_key).hexdigest(), data) for data in request.images]
    if spec.priority not in _PRIORITIES:
        raise invalid_field("spec.priority", f"is {spec.priority}; allowed: {', '.join(p.name for p in Priority)}")
    priority = Priority(spec.priority or Priority.NORMAL)
    timeout = _timeout(spec, settings)
    if submission.time_remaining is not None:
        timeout = max(0.001, min(timeout, submission.time_remaining))
    fresh = spec.fresh
    for name in ("priority", "timeout", "fresh"):  # which do not change the result, so are no part of the fingerprint
        spec.ClearField(name)
    spec_bytes = spec.SerializeToString(deterministic=True)
    plan = resolve_serialized(spec_bytes, card)
    _check_bounds(plan, settings)
    result_bytes = plan.result_bytes + plan.header_bytes
    if submission.is_unary and result_bytes > settings.chunk_bytes:
        raise StatusError(
            Reason.RESULT_TOO_LARGE,
            f"the result of {plan.result_bytes} bytes is too large for one message of {settings.chunk_bytes}; "
            "Visualize gives it in several",
        )
    content = "".join(digest for digest, _ in images).encode() + spec_bytes
    return NewJob(
        id=submission.job_id,
        model=card.name,
        pool=live.pools[card.name],
        tenant=submission.tenant,
        priority=priority,
        spec=spec_bytes,
        images=images,
        fingerprint=blake3(content, key=tenant_key).hexdigest(),
        cost=plan.cost(pixels),
        pixels=pixels,
        reserved=result_bytes,
        timeout=timeout,
        keep=submission.keep,
        record_bytes=RECORD_BYTES + len(spec_bytes) + IMAGE_RECORD_BYTES * len(images),
        fresh=fresh,
        request_id=submission.request_id,
    )


def _check_bounds(plan: JobPlan, settings: ServerSettings) -> None:
    """Check targets, bytes and passes of a plan against the limits."""
    if len(plan.targets[0]) > settings.max_targets:
        raise invalid_field("spec.targets", f"has {len(plan.targets[0])} an image; allowed: {settings.max_targets}")
    if plan.result_bytes > settings.max_result_bytes:
        raise invalid_field(
            "spec.visualizations",
            f"the result would take {plan.result_bytes} bytes; allowed: {settings.max_result_bytes}. Ask for fewer "
            "images, layers, channels or targets a job",
        )
    if plan.working_bytes > settings.max_working_bytes:
        raise invalid_field(
            "spec.visualizations",
            f"the result would be made of {plan.working_bytes} working bytes; allowed: {settings.max_working_bytes}. "
            "Ask for fewer images, layers, channels or targets a job",
        )
    if plan.passes > settings.max_passes:
        raise invalid_field(
            "spec.visualizations",
            f"the job would take {plan.passes} passes; allowed: {settings.max_passes}. Ask for fewer images, samples, "
            "steps or squares a job",
        )


def find_model(name: str, live: LiveModels, field: str, known_names: Collection[str] = ()) -> model_pb2.Model:
    """Return the card of `name`, or of the default model for an empty name.

    StatusError NO_WORKERS, which is worth a retry, for a model of `known_names`; MODEL_UNKNOWN for any other.
    """
    cards = live.models
    if card := cards.get(name or default_model(cards)):
        return card
    refusals = "".join(
        f"; {model.worker} cannot serve it: {model.reason}" for model in live.refused if model.name == name
    )
    if not cards or name in known_names:
        raise StatusError(
            Reason.NO_WORKERS,
            f"no worker serves {repr(name) if name else 'any model'} just now{refusals or _START}",
            retry_after=RETRY_SECONDS,
        )
    raise StatusError(
        Reason.MODEL_UNKNOWN,
        f"{field}: no model {name!r}; served are: {', '.join(sorted(cards))}{refusals}",
        field=field,
    )


def default_model(cards: Mapping[str, model_pb2.Model]) -> str:
    """Return the name of the model used when none is named: the first by name, real ones before synthetic ones."""
    return min(cards, key=lambda name: (cards[name].synthetic, name), default="")


def make_job_id(request_id: str, tenant: str) -> str:
    """Derive a job's id from a canonical request id, so that a repeated call finds its job; without one, draw it."""
    if not request_id:
        return uuid.uuid4().hex
    return blake3(f"{tenant}/{uuid.UUID(request_id).hex}".encode()).hexdigest(16)


def canonical_request_id(text: str) -> str:
    """Return a UUID, with or without hyphens, in lower case and with them; empty for an empty `text`."""
    if not text:
        return ""
    if not re.fullmatch("[0-9a-fA-F]{32}|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", text):
        raise invalid_field("request_id", f"{text[:80]!r} is no UUID; one such as {uuid.uuid4()} is needed")
    return str(uuid.UUID(text))


def check_job_id(text: str) -> str:
    """Return `text` if it has the form of a job id."""
    if len(text) != 32 or not set(text) <= set("0123456789abcdef"):
        raise invalid_field("id", f"{text[:80]!r} is no job id; one has 32 lower-case hex digits")
    return text


def check_offset(offset: int, total: int) -> int:
    """Return `offset` if it lies within a result of `total` bytes."""
    if not 0 <= offset <= total:
        raise invalid_field("offset", f"is {offset}; allowed: 0…{total}")
    return offset


def _check_count(field: str, number: int, limit: int) -> None:
    if not 1 <= number <= limit:
        raise invalid_field(field, f"has {number}; allowed: 1…{limit}")


def _timeout(spec: spec_pb2.JobSpec, settings: ServerSettings) -> float:
    """Return the timeout in seconds."""
    if not spec.HasField("timeout"):
        return settings.default_timeout
    seconds = spec.timeout.seconds + spec.timeout.nanos / 1e9
    if not 0 < seconds <= settings.max_timeout:
        raise invalid_field("spec.timeout", f"is {seconds:g} s; allowed: above 0, up to {settings.max_timeout:g} s")
    return seconds
