"""schema.md names every key and every field of a job that a run leaves in Redis, with its type."""

from __future__ import annotations

import re
from importlib import resources

import pytest

from convlens.jobs.queue.record import JobFailure

PAGE = (resources.files("convlens.jobs.queue") / "schema.md").read_text()
ROWS = re.findall(r"^\| `([^`]+)` \| (\w+) \|", PAGE, re.MULTILINE)
FIELDS = set(re.findall(r"^\| `(\w+)` \| .* \|", PAGE[PAGE.index("## Fields of a job") :], re.MULTILINE))


def pattern(key: str) -> re.Pattern[str]:
    """What the keys of a row look like."""
    whole = key if key.startswith("convlens.") else f"convlens:{key}"
    return re.compile(re.sub("ID|TENANT|POOL|FINGERPRINT|NUMBER|SECRET|FLOW|NAME", r".+", re.escape(whole)))


@pytest.fixture
def busy(jobs):
    """A Redis with jobs of every state and kind."""
    equal = {"fingerprint": "f", "images": [("digest", b"image")], "cost": 1}
    jobs.succeed(jobs.take(jobs.submit(tenant="t")))
    jobs.fail(jobs.take(jobs.submit(tenant="t")), JobFailure("INTERNAL", "why", "where"))
    answered = jobs.submit(keep=False)
    jobs.succeed(jobs.take(answered))
    jobs.leave(answered)
    claimed = jobs.take(jobs.submit())
    jobs.queue.progress(claimed, 0.5)
    jobs.queue.release(claimed)
    jobs.claim()
    for _ in range(2):
        jobs.submit(keep=False, **equal)
    jobs.submit(cost=50)
    jobs.submit(pixels=64_000_000, cost=6)
    jobs.queue.cancel(jobs.submit(tenant="t").id)
    return jobs.queue.redis


def test_every_key_is_of_a_row_and_of_its_type(busy):
    rows = [(pattern(key), kind) for key, kind in ROWS]
    for key in busy.scan_iter():
        name, kind = key.decode(), busy.type(key).decode()
        assert any(row.fullmatch(name) and of == kind for row, of in rows), (name, kind)


def test_every_field_of_a_job_is_of_a_row(busy):
    fields = {name.decode() for key in busy.scan_iter("convlens:job:*") for name in busy.hkeys(key)}
    assert fields <= FIELDS
    assert len(fields) > 30
