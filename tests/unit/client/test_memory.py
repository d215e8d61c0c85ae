"""A program of arrays alone reuses the memory of its requests from call to call, by the count of page faults."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

CALLS = 200
PROGRAM = f"""
import resource
import grpc, numpy
from convlens.client import Saliency
from convlens.client.connection import Connection
from convlens.client.images import pack
from convlens.client.request import new_request, new_spec

photo = numpy.zeros((224, 224, 3), numpy.uint8)
options = dict(model="", scored_layer="", predictions=None, priority="normal", fresh=False)
if {{connected}}:
    channel = Connection("127.0.0.1:1", None, None).channel(grpc, None)

def requests(number):
    for _ in range(number):
        new_request(new_spec([Saliency()], **options), pack([photo]), None)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

before = requests(20)
print(requests({CALLS}) - before)
"""


def page_faults(*, connected):
    program = [sys.executable, "-c", PROGRAM.format(connected=connected)]
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    return int(subprocess.run(program, check=True, capture_output=True, text=True, env=env).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep memory by other rules")
def test_a_connected_program_reuses_the_memory_of_its_requests():
    """Fewer than 5 faults per request, where there would be about 80."""
    assert page_faults(connected=True) < 5 * CALLS < 20 * CALLS < page_faults(connected=False)
