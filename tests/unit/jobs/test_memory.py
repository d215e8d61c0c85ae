"""Large blocks come again from memory that is there: counted in pages that the kernel has to bring in."""

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


def faults(first):
    program = [sys.executable, "-c", PROGRAM.format(first=first)]
    return int(subprocess.run(program, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such setting")
def test_kept_memory_is_not_brought_in_again():
    once = BLOCKS * BLOCK // 4096
    assert faults("memory.keep()") < 3 * once
    assert faults("") > ROUNDS * once // 2
