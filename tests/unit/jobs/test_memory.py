"""Freed large blocks are reused, by the count of page faults, and returned to the kernel by an idle process."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

ROUNDS, BLOCKS, BLOCK = 30, 8, 4 << 20
PROGRAM = f"""
import resource
from convlens.jobs.runtime import process
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
    assert page_faults("process.keep_freed_blocks()") < 3 * once
    assert page_faults("") > ROUNDS * once // 2


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such setting")
def test_an_idle_process_returns_freed_memory():
    """Freed blocks between others that are still in use stay in the process until it is trimmed."""
    program = """
import time
from convlens.jobs.runtime import process
process.keep_freed_blocks(arenas=1)
before = process.resident_bytes()
blocks = [bytes(size << 10) for _ in range(2000) for size in (64, 1)]
blocks = blocks[1::2]
held = process.resident_bytes() - before
trimmer = process.Trimmer()
trimmer.start()
end = time.monotonic() + 10
while process.resident_bytes() - before > 32 << 20 and time.monotonic() < end:
    time.sleep(0.1)
print(held, process.resident_bytes() - before)
trimmer.stop()
"""
    output = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    held, left = map(int, output.split())
    assert held > 100 << 20
    assert left < 32 << 20
