"""What the SDK says and does where an extra is not installed: the command that it names installs what it needs."""

from __future__ import annotations

import json
import shlex

import pytest

pytestmark = [pytest.mark.packages, pytest.mark.timeout(900)]
CALLS = """
import json, pathlib, sys
import numpy as np
from convlens.client import Client, GradCAM, MissingExtra, TopK, keras_vis
from convlens.client.testing import serve

photo = np.zeros((8, 8, 3), np.uint8)
messages = {}
with serve() as target, Client(target) as client:
    result = client.grad_cam(photo, target=TopK(2))
    model = keras_vis.Model(client)
    for name, call in {
        "figure": result.figure,
        "overlay": lambda: result.overlay("grad_cam"),
        "save": lambda: result.save("out"),
        "progress": lambda: list(client.map([photo], [GradCAM()], progress=True)),
        "visualize_cam": lambda: keras_vis.visualize_cam(model, -1, 3, photo),
        "visualize_saliency": lambda: keras_vis.visualize_saliency(model, -1, 3, photo),
    }.items():
        try:
            call()
        except MissingExtra as error:
            messages[name] = error.message
    picture = result._repr_html_()
files = sorted(str(path) for path in pathlib.Path().iterdir())
print(json.dumps([messages, picture is not None, files]))
"""


def call_everything(environment):
    """Return the messages of MissingExtra by call, whether a notebook shows a picture, and the files written."""
    return json.loads(environment.check("python", "-W", "error", "-c", CALLS))


def test_the_command_that_an_error_names_installs_what_is_missing(install):
    environment = install("convlens-client")
    messages, has_picture, files = call_everything(environment)
    assert messages == {
        "figure": 'figure() needs matplotlib and Pillow: pip install "convlens-client[figures]"',
        "overlay": 'overlay() needs matplotlib and Pillow: pip install "convlens-client[figures]"',
        "save": 'save() needs matplotlib and Pillow: pip install "convlens-client[figures]"',
        "progress": 'progress=True needs tqdm: pip install "convlens-client[progress]"',
        "visualize_cam": 'visualize_cam() needs SciPy: pip install "convlens-client[keras-vis]"',
    }
    assert (has_picture, files) == (False, [])
    for call in ("figure", "progress", "visualize_cam"):
        program, *arguments = shlex.split(messages[call].partition(": ")[2])
        environment.check(program, *arguments)
    assert call_everything(environment) == [{}, True, ["out"]]
    assert {path.name for path in (environment.work / "out").iterdir()} == {"maps.png", "arrays.npz"}


@pytest.mark.parametrize(
    ("requirement", "module"), [("convlens-client", "zlib"), ("convlens-client[fast]", "zlib_ng.zlib_ng")]
)
def test_the_extra_fast_changes_what_computes_checksums(install, requirement, module):
    code = f"import {module}; from convlens.v1.checksum import crc32; assert crc32 is {module}.crc32"
    install(requirement).check("python", "-c", code)
