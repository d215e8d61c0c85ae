"""Freed large blocks are reused, by the count of page faults."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

ROUNDS, BLOCKS, BLOCK = 30, 8, 4 << 20
PROGRAM = f"""
import resource
from convlens.jobs.runtime import memory
{{first}}
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({ROUNDS}):
    [bytearray(b"x") * {BLOCK} for _ in range({BLOCKS})]
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(first):
    program = [sys.executable, "-c", PROGRAM.format(first=first)]
    return int(subprocess.run(program, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such setting")
def test_kept_blocks_take_no_new_page_faults():
    once = BLOCKS * BLOCK // 4096
    assert page_faults("memory.keep_freed_blocks()") < 3 * once
    assert page_faults("") > ROUNDS * once // 2
