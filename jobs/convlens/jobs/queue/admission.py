"""Admission: bounds on what is held in total and per tenant, a rate per tenant, and the error of a job beyond them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

WAIT_SECONDS: Final = (0.1, 30.0)
"""The shortest and the longest retry delay of a rejected caller."""
SHARE: Final = 0.1
"""The least share of what is held that should have been freed before a retry."""
CACHE: Final = 1 / 8
"""The share of `result_bytes` that cached results may have."""


@dataclass(frozen=True)
class Bounds:
    """The bounds that new jobs are held to."""

    jobs: int
    """Queued and running."""
    image_bytes: int
    """Of live jobs' images, equal ones counted once, and of their records."""
    result_bytes: int
    """Of stored results, and reserved for those of live jobs."""
    known_jobs: int
    """Records of live and of ended jobs."""
    pixels: int
    """Of live jobs' images, as decoding them counts."""
    tenant_share: float
    """The share of each bound that one tenant may use, 0…1; callers without a tenant are not held to a share."""
    tenant_rate: float | None = None
    """Cost per second (see NewJob) that one tenant may submit; None: any, as for callers without a tenant."""
    tenant_burst: float = 0.0
    """Seconds of that rate that a tenant may have submitted in advance and still submit more."""

    @property
    def cached_bytes(self) -> int:
        """Of cached results, which no job refers to; few, so that Redis and its files stay small."""
        return int(self.result_bytes * CACHE)

    @functools.cached_property
    def script_args(self) -> dict[str, float]:
        """The option `bounds` of the scripts."""
        rate = {"tenant_rate": self.tenant_rate or 0, "tenant_burst": self.tenant_burst * 1000}
        return {**asdict(self), **rate, "cached_bytes": self.cached_bytes}


_NAMES: Final = {
    "jobs": ("max_jobs", "jobs queued or running"),
    "image_bytes": ("max_queued_bytes", "bytes of images and records"),
    "result_bytes": ("max_stored_bytes", "bytes of results"),
    "known_jobs": ("max_known_jobs", "jobs known"),
    "pixels": ("max_queued_pixels", "pixels to decode"),
}


class AdmissionRejected(RuntimeError):
    """The job would exceed a bound."""

    def __init__(self, limit: str, tenant: str, message: str, retry_after: float, *, never: bool = False) -> None:
        super().__init__(f"{limit}: {message}")
        self.limit = limit
        self.tenant = tenant
        self.never = never
        """True when waiting would not help."""
        self.retry_after = retry_after
        """Seconds until the job should be admitted, by the present throughput or the tenant's rate."""

    @classmethod
    def from_script(cls, details: Sequence[bytes]) -> AdmissionRejected:
        """Parse details of submit.lua: counter, ":tenant", held, needed, allowed, live jobs, jobs that end per second.

        For a rate: "rate", ":tenant", the rate, milliseconds until more is admitted.
        """
        counter, tenant = details[0].decode(), details[1].decode().removeprefix(":")
        if counter == "rate":
            rate, wait = float(details[2]), float(details[3]) / 1000
            message = f"tenant {tenant!r} may ask for {rate:g} images × passes a second, and for more in {wait:.3g} s"
            return cls("tenant_rate", tenant, message, wait)
        limit, unit = _NAMES[counter]
        held, requested, allowed, jobs, rate = map(float, details[2:])
        least, most = WAIT_SECONDS
        share = max(SHARE, (held + requested - allowed) / max(held, 1))
        wait = min(most, max(least, share * jobs / rate)) if rate > 0 else 1.0
        whose = f"tenant {tenant!r} has" if tenant else "there are"
        message = f"{whose} {held:.0f} {unit}, and this job's {requested:.0f} would pass the {allowed:.0f} admitted"
        return cls(limit, tenant, message, wait, never=requested > allowed)
