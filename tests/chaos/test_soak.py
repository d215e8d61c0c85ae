"""Each kind of client of the soak works; the soak itself is `make soak`."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from chaos.stack import SUPPORT, running_stack
from soak.client import KINDS
from soak.measures import sample


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    with running_stack(tmp_path_factory.mktemp("soak"), shapes=True, payloads_in_folder=True) as stack:
        yield stack


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_of_each_kind_completes_a_call(stack, kind):
    command = [sys.executable, "-m", "soak.client", kind, stack.target]
    env = os.environ | {"PYTHONPATH": str(SUPPORT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as client:
        try:
            if kind == "crashing":
                assert (client.wait(60), client.stderr.read()) == (0, "")
            else:
                assert client.stdout.readline().strip() == kind, client.stderr.read()
        finally:
            client.kill()
    assert sample(stack)["Redis keys"] > 0
