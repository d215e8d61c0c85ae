"""A store of payloads in a folder of the test's own."""

from __future__ import annotations

import time

import pytest

from convlens.jobs.payloads.directory import DirectoryPayloads


@pytest.fixture
def store(tmp_path) -> DirectoryPayloads:
    return DirectoryPayloads(tmp_path, time.time)
