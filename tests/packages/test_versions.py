"""The versions that docs/install.md says fit together: lowest, newest, and beside TensorFlow and tritonclient."""

from __future__ import annotations

import pytest
from distributions import PROJECTS, PYTHONS, TOP, collect_lowest_versions, read_table

import convlens.local

pytestmark = [pytest.mark.packages, pytest.mark.timeout(1500)]
VERSIONS = dict(read_table((TOP / "docs/install.md").read_text(), "Versions that fit together"))
LOWEST_PYTHON = PYTHONS[0]
"""The only one that all lowest versions have wheels for."""
CALL = """
import sys
import numpy as np
from convlens.client import Client, GradCAM
from convlens.v1 import tensors

array = np.arange(6, dtype=np.float32).reshape(2, 3)
assert (tensors.decode(tensors.encode(array)) == array).all()
image = np.zeros((224, 224, 3), np.uint8)
with Client(sys.argv[1]) as client:
    assert client.models()[0].name == client.server_info().default_model
    assert client.grad_cam(image)["grad_cam"].shape == (1, 14, 14)
    assert client.submit(image, [GradCAM()]).result()["grad_cam"].shape == (1, 14, 14)
    assert len(list(client.map([image] * 3, [GradCAM()]))) == 3
"""
IMPORTS = {
    "tensorflow": "import tensorflow as tf; assert tf.reduce_sum([1, 2]) == 3",
    "tritonclient[grpc]": "from tritonclient.grpc import InferInput; InferInput('x', [1], 'FP32')",
}


def pin_bounds(name, versions):
    """Return requirements of the lowest and the highest version of a row of the page, such as `2.18 to 2.21`."""
    low, _, high = versions.partition(" to ")
    return [f"{name}=={low.removesuffix(' or newer')}.*", f"{name}=={high}.*" if high else name]


@pytest.fixture(scope="module")
def target():
    with convlens.local.serving(models=["null=null"]) as target:
        yield target


@pytest.fixture
def constrain(tmp_path):
    """A function that writes a constraints file of the lowest versions that distributions admit together."""

    def constrain(*folders):
        file = tmp_path / "lowest.txt"
        lowest = collect_lowest_versions(*folders)
        file.write_text("".join(f"{name}=={version}.*\n" for name, version in lowest.items()))
        return file

    return constrain


@pytest.mark.parametrize("python", PYTHONS)
def test_the_sdk_calls_a_server_with_the_newest_versions(install_once, target, python):
    install_once("convlens-client", python=python).check("python", "-W", "error", "-c", CALL, target)


def test_the_sdk_calls_a_server_with_the_lowest_versions(install_once, target, constrain):
    environment = install_once("convlens-client", "-c", constrain("proto", "client"), python=LOWEST_PYTHON)
    environment.check("python", "-W", "error", "-c", CALL, target)


@pytest.mark.parametrize(
    "neighbour",
    [*pin_bounds("tensorflow", VERSIONS["TensorFlow"]), *pin_bounds("tritonclient[grpc]", VERSIONS["tritonclient"])],
)
def test_the_sdk_works_in_one_process_with(install_once, target, neighbour):
    environment = install_once("convlens-client", neighbour)
    use_neighbour = IMPORTS[neighbour.partition("==")[0]]
    environment.check("python", "-c", use_neighbour + CALL, target)
    environment.check("python", "-c", CALL + use_neighbour, target)


def test_everything_works_with_the_lowest_versions(install_once, photo, constrain):
    environment = install_once("convlens[all]", "-c", constrain(*PROJECTS), python=LOWEST_PYTHON)
    with environment.serving("up", "--port", "0") as target:
        environment.check("convlens", "--server", target, "visualize", photo, "-o", "out")
        environment.check("python", "-c", CALL, target)
