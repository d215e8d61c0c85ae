"""The SDK's surface: both clients have the same methods, importing it is light, and a client cannot be pickled."""

from __future__ import annotations

import inspect
import json
import pickle
import subprocess
import sys

import pytest

from convlens.client import AsyncClient, Client
from convlens.client._async.job import AsyncJob
from convlens.client._sync.job import Job

FORBIDDEN = ("tensorflow", "keras", "celery", "kombu", "redis", "convlens.jobs", "convlens.server", "convlens.worker")
LAZY = ("PIL", "matplotlib", "rich", "typer", "h5py", "scipy", "tqdm")


def surface(kind):
    """Return the public methods with their parameters: names, kinds and defaults."""
    methods = {name: method for name, method in inspect.getmembers(kind, inspect.isfunction) if name[0] != "_"}
    parameters = {}
    for name, method in (methods | {"__init__": kind.__init__}).items():
        values = inspect.signature(method).parameters.values()
        parameters[name] = [(parameter.name, parameter.kind, parameter.default) for parameter in values]
    return parameters


@pytest.mark.parametrize(("sync", "asynchronous"), [(Client, AsyncClient), (Job, AsyncJob)])
def test_both_clients_have_the_same_methods_and_parameters(sync, asynchronous):
    methods = surface(sync)
    assert methods == surface(asynchronous)
    assert len(methods) > 5
    assert all(getattr(kind, name).__doc__ for kind in (sync, asynchronous) for name in methods if name[0] != "_")


def test_importing_the_client_is_light():
    code = (
        "import time, json, sys; began = time.process_time(); import convlens.client; "
        "print(json.dumps([time.process_time() - began, list(sys.modules)]))"
    )
    runs = [json.loads(subprocess.check_output([sys.executable, "-c", code], timeout=60)) for _ in range(3)]
    assert min(seconds for seconds, _ in runs) < 0.5
    loaded = set(runs[0][1])
    assert not loaded & {*FORBIDDEN, *LAZY}
    assert "convlens.client._sync.client" in loaded


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_client_is_created_without_a_connection_and_cannot_be_pickled(kind):
    client = kind("nowhere.invalid:1")
    with pytest.raises(TypeError, match="cannot be pickled; make one in each process"):
        pickle.dumps(client)


def test_every_exported_name_exists():
    import convlens.client as package

    assert sorted(package.__all__, key=str) == sorted(set(package.__all__), key=str)
    assert all(hasattr(package, name) for name in package.__all__)
