"""What may be held at once, in all and for one tenant, and what a caller is told who asks for more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

WAIT_SECONDS: Final = (0.1, 30.0)
"""The least and the most that a refused caller is asked to wait."""
SHARE: Final = 0.1
"""The share of what is held that should have drained by then, if the caller needs no more."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What is admitted."""

    jobs: int
    """Queued and running."""
    image_bytes: int
    """Of live jobs' images; equal ones count once."""
    result_bytes: int
    """Of results there, and of those that live jobs are to make."""
    tenant_share: float
    """The share of each that one tenant may have, 0…1; callers without a tenant have no share of their own."""


_NAMES: Final = {
    "jobs": ("max_jobs", "jobs queued or running"),
    "image_bytes": ("max_queued_bytes", "bytes of images"),
    "result_bytes": ("max_stored_bytes", "bytes of results"),
}


class Full(RuntimeError):
    """A job that there is no room for just now."""

    def __init__(self, what: str, tenant: str, held: float, wanted: float, allowed: float, retry_after: float) -> None:
        limit, unit = _NAMES[what]
        whose = f"tenant {tenant!r} has" if tenant else "there are"
        super().__init__(
            f"{limit}: {whose} {held:.0f} {unit}, and this job's {wanted:.0f} would pass the {allowed:.0f} admitted"
        )
        self.limit = limit
        self.tenant = tenant
        self.never = wanted > allowed
        """True when waiting would not help."""
        self.retry_after = retry_after
        """Seconds in which, as jobs end now, there should be room."""

    @classmethod
    def from_script(cls, told: Sequence[bytes]) -> Full:
        """What submit.lua answers: what, ":tenant", held, wanted, allowed, live jobs, jobs that end in a second."""
        what, tenant = told[0].decode(), told[1].decode().removeprefix(":")
        held, wanted, allowed, jobs, rate = map(float, told[2:])
        least, most = WAIT_SECONDS
        share = max(SHARE, (held + wanted - allowed) / max(held, 1))
        return cls(what, tenant, held, wanted, allowed, min(most, max(least, share * jobs / rate)) if rate > 0 else 1.0)
