"""The gateway before a real service: the arrays of the SDK, tokens, progress, and callers who leave."""

from __future__ import annotations

import io
import json

import httpx
import numpy as np
import pytest
from gateways import arrays, gateway, png
from PIL import Image
from processes import until

from convlens.client import Activations, Client, GradCAM, Output, Saliency
from convlens.worker.shapes import draw

MAPS = [
    {"type": "saliency"}, {"type": "saliency", "method": "guided"}, {"type": "grad_cam"},
    {"type": "activations", "layers": ["block2_conv1"], "channels": 4},
]  # fmt: skip


def scene(index):
    """A PNG file of a scene that the model knows."""
    file = io.BytesIO()
    Image.fromarray(draw(2026, index).image).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def target(start_service):
    """The target of a service with the model `shapes`."""
    service = start_service()
    service.worker("shapes=shapes")
    return service.server()[1]


@pytest.fixture
def http(target):
    """An HTTP client of a gateway of the service."""
    with gateway(target) as client:
        yield client


def post(http, path, *photos, accept="application/json", **request):
    """Send photos, and what to compute on them."""
    files = [("image", ("a.png", photo)) for photo in photos]
    return http.post(path, files=files, data={"request": json.dumps(request)}, headers={"Accept": accept})


def test_arrays_are_those_of_the_sdk_to_the_bit(http, target):
    photos = [scene(0), scene(4)]
    visualizations = [Saliency(), Saliency("guided"), GradCAM(), Activations(["block2_conv1"], range(4))]
    with Client(target) as client:
        expected = client.visualize(photos, visualizations)
    response = post(http, "/v1/visualize", *photos, visualizations=MAPS)
    assert response.status_code == 200, response.text
    received = arrays(response)
    npz = post(http, "/v1/visualize", *photos, visualizations=MAPS, accept="application/x-npz")
    saved = np.load(io.BytesIO(npz.content))
    assert list(received) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(received[name], array)
        np.testing.assert_array_equal(saved[name.replace("/", ".")], array)
    labels = [[prediction["label"] for prediction in image] for image in response.json()["predictions"]]
    assert labels == [[prediction.label for prediction in image] for image in expected.predictions]


def test_bytes_and_their_scale_are_those_of_the_sdk(http, target):
    with Client(target) as client:
        expected = client.visualize(scene(0), [GradCAM(output=Output(dtype="uint8"))])
    response = post(http, "/v1/visualize", scene(0), datatype="uint8")
    np.testing.assert_array_equal(arrays(response)["grad_cam"], expected["grad_cam"])
    (array,) = response.json()["arrays"]
    restored = np.float32(array["offset"][0]) + np.float32(array["scale"][0]) * arrays(response)["grad_cam"]
    np.testing.assert_allclose(restored, expected.restored("grad_cam"), rtol=1e-6)
    picture = post(http, "/v1/visualize", scene(0), accept="image/png")
    assert Image.open(io.BytesIO(picture.content)).size == Image.open(io.BytesIO(scene(0))).size


def test_the_events_of_a_job_of_many_passes_have_its_progress(http):
    occlusion = {"type": "occlusion", "patch": 16, "stride": 4}
    address = post(http, "/v1/jobs", scene(6), visualizations=[occlusion], fresh=True).headers["location"]
    with http.stream("GET", f"{address}/events") as response:
        lines = [line for line in response.iter_lines() if line.startswith("data: ")]
    jobs = [json.loads(line.removeprefix("data: ")) for line in lines]
    assert jobs[-1]["state"] == "succeeded"
    assert any(0 < job["progress"] < 1 for job in jobs)
    assert arrays(http.get(f"{address}/result"))["occlusion"].shape == (1, 224, 224)


def test_a_caller_who_leaves_cancels_what_it_waits_for_and_no_other_job(http, target):
    long = {"visualizations": [{"type": "occlusion", "patch": 32, "stride": 2}], "fresh": True}
    kept = post(http, "/v1/jobs", scene(8), **long).json()["id"]
    with pytest.raises(httpx.ReadTimeout):
        http.post("/v1/visualize", files={"image": ("a.png", png())}, data={"request": json.dumps(long)}, timeout=2)
    with Client(target) as client:
        left = next(job.id for job in client.jobs() if job.id != kept)
        until(lambda: client.job(left).status().state.is_final)
        assert client.job(left).status().error.reason == "ABANDONED"
        assert not client.job(kept).status().state.is_final
    assert http.post(f"/v1/jobs/{kept}/cancel").json()["state"] == "cancelled"
