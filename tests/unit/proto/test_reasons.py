"""The reasons of errors: documented in one table, and complete for what jobs and workers write."""

from __future__ import annotations

import re
from pathlib import Path

import grpc
import pytest

from convlens.v1.reasons import Reason, code_of

ROOT = Path(__file__).parents[3]


def test_the_table_of_the_docs_is_the_enum():
    page = (ROOT / "docs/errors.md").read_text()
    rows = re.findall(r"^\| `([A-Z_]+)` \| ([A-Z_]+) \| (.+) \| (.+) \|$", page, re.MULTILINE)
    assert rows == [(reason.value, reason.code.name, reason.meaning, reason.action) for reason in Reason]


@pytest.mark.parametrize("reason", Reason)
def test_a_reason_has_its_name_as_value_and_an_error_code(reason):
    assert reason.value == reason.name
    assert reason.code is not grpc.StatusCode.OK


def test_every_reason_that_jobs_and_workers_write_is_in_the_enum():
    written = set()
    for folder in ("jobs", "worker"):
        for path in (ROOT / folder).rglob("*.lua"):
            written |= set(re.findall(r"reason = '([A-Z_]+)'", path.read_text()))
        for path in (ROOT / folder).rglob("*.py"):
            written |= set(re.findall(r'JobFailure\(\s*"([A-Z_]+)"', path.read_text()))
    assert {"ABANDONED", "IMAGE_UNREADABLE"} <= written
    assert written <= set(Reason)


def test_a_reason_of_a_newer_worker_is_internal():
    assert code_of("OF_A_NEWER_WORKER") is grpc.StatusCode.INTERNAL
