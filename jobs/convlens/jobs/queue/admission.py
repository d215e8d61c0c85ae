"""What may be held at once, in all and for one tenant, how fast a tenant may ask, and what who wants more is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

WAIT_SECONDS: Final = (0.1, 30.0)
"""The least and the most that a refused caller is asked to wait."""
SHARE: Final = 0.1
"""The share of what is held that should have drained by then, if the caller needs no more."""
CACHE: Final = 1 / 8
"""The share of the bytes of results that those have that only answer equal requests any more."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What is admitted."""

    jobs: int
    """Queued and running."""
    image_bytes: int
    """Of live jobs' images, of which equal ones count once, and of their records."""
    result_bytes: int
    """Of results there, and of those that live jobs are to make."""
    known_jobs: int
    """Records there, of live jobs and of those that have ended."""
    pixels: int
    """Of live jobs' images, as decoding them counts."""
    tenant_share: float
    """The share of each that one tenant may have, 0…1; callers without a tenant have no share of their own."""
    tenant_rate: float | None = None
    """Cost a second (see NewJob) that one tenant may ask for; None: any, as for callers without a tenant."""
    tenant_burst: float = 0.0
    """Seconds of that rate that it may be ahead of it and still ask for more."""

    @property
    def cached_bytes(self) -> int:
        """Of results that nobody waits for and no job keeps; few, for Redis and its files to stay small."""
        return int(self.result_bytes * CACHE)

    def script_args(self) -> dict[str, int]:
        """The option `bounds` of scripts."""
        return {
            "jobs": self.jobs, "image_bytes": self.image_bytes, "result_bytes": self.result_bytes,
            "cached_bytes": self.cached_bytes, "known_jobs": self.known_jobs, "pixels": self.pixels,
        }  # fmt: skip


_NAMES: Final = {
    "jobs": ("max_jobs", "jobs queued or running"),
    "image_bytes": ("max_queued_bytes", "bytes of images and records"),
    "result_bytes": ("max_stored_bytes", "bytes of results"),
    "known_jobs": ("max_known_jobs", "jobs known"),
    "pixels": ("max_queued_pixels", "pixels to decode"),
}


class AdmissionRejected(RuntimeError):
    """A job that there is no room for just now."""

    def __init__(self, limit: str, tenant: str, message: str, retry_after: float, *, never: bool = False) -> None:
        super().__init__(f"{limit}: {message}")
        self.limit = limit
        self.tenant = tenant
        self.never = never
        """True when waiting would not help."""
        self.retry_after = retry_after
        """Seconds in which there will be room: as jobs end now, or by the tenant's rate."""

    @classmethod
    def from_script(cls, details: Sequence[bytes]) -> AdmissionRejected:
        """What submit.lua answers: what, ":tenant", held, wanted, allowed, live jobs, jobs that end in a second.

        Of a rate: "rate", ":tenant", the rate, the milliseconds until it admits more.
        """
        what, tenant = details[0].decode(), details[1].decode().removeprefix(":")
        if what == "rate":
            rate, wait = float(details[2]), float(details[3]) / 1000
            message = f"tenant {tenant!r} may ask for {rate:g} images × passes a second, and for more in {wait:.3g} s"
            return cls("tenant_rate", tenant, message, wait)
        limit, unit = _NAMES[what]
        held, requested, allowed, jobs, rate = map(float, details[2:])
        least, most = WAIT_SECONDS
        share = max(SHARE, (held + requested - allowed) / max(held, 1))
        wait = min(most, max(least, share * jobs / rate)) if rate > 0 else 1.0
        whose = f"tenant {tenant!r} has" if tenant else "there are"
        message = f"{whose} {held:.0f} {unit}, and this job's {requested:.0f} would pass the {allowed:.0f} admitted"
        return cls(limit, tenant, message, wait, never=requested > allowed)
