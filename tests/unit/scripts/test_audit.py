"""`make audit` fails on findings and errors; without the advisory service it passes and says so."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

PATH = Path(__file__).parents[3] / "scripts" / "audit.py"
GOOD = {"name": "good", "version": "1.0", "vulns": []}
BAD = {"name": "bad", "version": "2.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.1"], "aliases": []}]}
UNKNOWN = {"name": "ours", "skip_reason": "not found"}


@pytest.fixture(scope="module")
def verdict():
    spec = importlib.util.spec_from_file_location("audit", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.verdict


@pytest.mark.parametrize(
    ("dependencies", "status", "text"),
    [
        ([GOOD], 0, "1 packages audited, 0 known"),
        ([GOOD, BAD], 1, "bad 2.0: PYSEC-1, fixed in ['2.1']"),
        ([GOOD, UNKNOWN], 0, "not known to the advisory service: ours"),
        ([UNKNOWN], 0, "not audited"),
    ],
)
def test_a_report_yields_its_exit_status_and_summary(verdict, dependencies, status, text):
    code, lines = verdict(json.dumps({"dependencies": dependencies, "fixes": []}), "")
    assert code == status
    assert text in "\n".join(lines)


def test_an_unreachable_advisory_service_is_reported_and_passes(verdict):
    code, [line] = verdict("", "Traceback …\nrequests.exceptions.ConnectionError: Failed to resolve")
    assert code == 0
    assert "not audited, the advisory service could not be reached" in line


def test_any_other_error_fails(verdict):
    assert verdict("", "ERROR: invalid requirements input: gone.txt")[0] == 2
    assert verdict("", "")[0] == 2
