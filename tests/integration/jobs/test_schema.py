"""schema.md lists every key that a run leaves in Redis, with its type, and every field of a job."""

from __future__ import annotations

import re
from importlib import resources

import pytest

from convlens.jobs.queue.record import JobFailure

PAGE = (resources.files("convlens.jobs.queue") / "schema.md").read_text()
ROWS = re.findall(r"^\| `([^`]+)` \| (\w+) \|", PAGE, re.MULTILINE)
FIELDS = set(re.findall(r"^\| `(\w+)` \| .* \|", PAGE[PAGE.index("## Fields of a job") :], re.MULTILINE))


def pattern(key: str) -> re.Pattern[str]:
    """A pattern that matches the keys of a row."""
    full_key = key if key.startswith("convlens.") else f"convlens:{key}"
    return re.compile(re.sub("ID|TENANT|POOL|FINGERPRINT|NUMBER|SECRET|FLOW|NAME", r".+", re.escape(full_key)))


@pytest.fixture
def filled_redis(jobs):
    """A Redis with jobs of every state and kind."""
    equal = {"fingerprint": "f", "images": [("digest", b"image")], "cost": 1}
    jobs.succeed(jobs.claim_job(jobs.submit(tenant="t")))
    jobs.fail(jobs.claim_job(jobs.submit(tenant="t")), JobFailure("INTERNAL", "why", "where"))
    answered = jobs.submit(keep=False)
    jobs.succeed(jobs.claim_job(answered))
    jobs.leave(answered)
    claim = jobs.claim_job(jobs.submit())
    jobs.queue.progress(claim, 0.5)
    jobs.queue.release(claim)
    jobs.claim()
    for _ in range(2):
        jobs.submit(keep=False, **equal)
    jobs.submit(cost=50)
    jobs.submit(pixels=64_000_000, cost=6)
    jobs.queue.cancel(jobs.submit(tenant="t").id)
    return jobs.queue.redis


def test_every_key_has_a_row_with_its_type(filled_redis):
    rows = [(pattern(key), kind) for key, kind in ROWS]
    for key in filled_redis.scan_iter():
        name, kind = key.decode(), filled_redis.type(key).decode()
        assert any(row.fullmatch(name) and row_kind == kind for row, row_kind in rows), (name, kind)


def test_every_field_of_a_job_has_a_row(filled_redis):
    fields = {name.decode() for key in filled_redis.scan_iter("convlens:job:*") for name in filled_redis.hkeys(key)}
    assert fields <= FIELDS
    assert len(fields) > 30
