"""Maps over HTTP: the arrays and pictures of the SDK, and requests that are refused by field."""

from __future__ import annotations

import inspect
import io
import json

import numpy as np
import pytest
from gateways import arrays, png
from PIL import Image

from convlens.client import ALL_UNITS, Activations, Blur, Client, GradCAM, Occlusion, Output, Saliency, TopK
from convlens.client.json_values import to_json_value
from convlens.web.job_input import parse_job_input

PHOTO = png()
OTHER = png(seed=1)


def post(http, *photos, query=None, accept="application/json", **request):
    """Send photos, and what to compute on them."""
    files = [("image", (f"{i}.png", photo)) for i, photo in enumerate(photos)]
    data = {"request": json.dumps(request)} if request else None
    return http.post("/v1/visualize", files=files, data=data, params=query, headers={"Accept": accept})


def assert_equal(over_http, result):
    """Compare arrays with those of the SDK, to the bit."""
    assert list(over_http) == list(result)
    for name, array in over_http.items():
        assert array.dtype == result[name].dtype
        np.testing.assert_array_equal(array, result[name])


@pytest.fixture
def sdk(target):
    """A client of the same server."""
    with Client(target) as client:
        yield client


def test_a_photo_alone_gets_its_class_activation_map(http, sdk):
    response, expected = post(http, PHOTO), sdk.grad_cam(PHOTO)
    body = response.json()
    assert response.status_code == 200
    assert_equal(arrays(response), expected)
    assert body["images"] == 1
    assert body["model"] == "vgg16"
    assert body["predictions"] == to_json_value(expected.predictions)
    assert body["explained"] == [{"grad_cam": to_json_value(list(expected.explained[0]["grad_cam"]))}]
    assert body["timing"].keys() == to_json_value(expected.timing).keys()
    (array,) = body["arrays"]
    assert {name: array[name] for name in ("scale", "offset", "signed", "channels")} == {
        "scale": None, "offset": None, "signed": False, "channels": None,
    }  # fmt: skip


def test_every_kind_of_visualization_and_option_reaches_the_server(http, sdk):
    described = [
        {"type": "saliency", "method": "integrated_gradients", "signed": True, "steps": 3,
         "baselines": ["black", {"sigma": 4}, [1, 2, 3]]},
        {"type": "grad_cam", "layer": "block4_conv2", "output": {"size": [20, 30], "normalization": "min_max"}},
        {"type": "activations", "layers": ["block1_conv1"], "channels": [3, 17]},
        {"type": "occlusion", "patch": 64, "color": "gray"},
    ]  # fmt: skip
    visualizations = [
        Saliency("integrated_gradients", signed=True, steps=3, baselines=["black", Blur(4), (1, 2, 3)]),
        GradCAM("block4_conv2", output=Output((20, 30), "min_max")),
        Activations(["block1_conv1"], [3, 17]),
        Occlusion(patch=64, color="gray"),
    ]
    response = post(http, PHOTO, OTHER, visualizations=described, target=[[207, 3], {"top_k": 2}], model="vgg16")
    assert response.status_code == 200, response.text
    assert_equal(arrays(response), sdk.visualize([PHOTO, OTHER], visualizations, target=[[207, 3], TopK(2)]))
    signs = {array["name"]: array["signed"] for array in response.json()["arrays"]}
    assert signs["saliency/integrated_gradients/signed"]
    assert signs["occlusion"]
    channels = {array["name"]: array["channels"] for array in response.json()["arrays"]}
    assert channels["activations/block1_conv1"] == [3, 17]


def test_an_array_of_bytes_brings_the_scale_and_offset_of_each_map(http, sdk):
    response = post(http, PHOTO, OTHER, datatype="uint8", visualizations=[{"type": "saliency"}], target={"top_k": 3})
    (array,), (steps,) = response.json()["arrays"], arrays(response).values()
    result = sdk.saliency([PHOTO, OTHER], target=TopK(3), output=Output(dtype="uint8"))
    assert steps.shape == (2, 3, 224, 224)
    scale, offset = (np.array(array[name], np.float32).reshape(2, 3, 1, 1) for name in ("scale", "offset"))
    np.testing.assert_array_equal(steps * scale + offset, result.restored("saliency"))


def test_the_dtype_of_an_output_comes_before_the_request_s(http):
    response = post(
        http, PHOTO, datatype="uint8",
        visualizations=[{"type": "grad_cam", "output": {"dtype": "float16"}}, {"type": "saliency", "output": {}}],
    )  # fmt: skip
    assert {name: array.dtype.name for name, array in arrays(response).items()} == {
        "grad_cam": "float16", "saliency": "uint8",
    }  # fmt: skip


def test_npz_has_the_arrays_of_result_save(http, sdk, tmp_path):
    response = post(http, PHOTO, accept="application/x-npz", visualizations=[{"type": "saliency", "method": "guided"}])
    assert response.headers["content-type"] == "application/x-npz"
    sdk.saliency(PHOTO, "guided").save(tmp_path)
    received, saved = np.load(io.BytesIO(response.content)), np.load(tmp_path / "arrays.npz")
    assert received.files == saved.files == ["saliency.guided"]
    np.testing.assert_array_equal(received["saliency.guided"], saved["saliency.guided"])


def test_a_picture_is_the_overlay_of_the_sdk(http, sdk):
    request = {"visualizations": [{"type": "saliency"}, {"type": "grad_cam"}], "target": {"top_k": 2}}
    query = {"array": "grad_cam", "target": 1, "opacity": 0.5, "cmap": "viridis", "background": "gray"}
    response = post(http, PHOTO, accept="image/png", query=query, **request)
    result = sdk.visualize(PHOTO, [Saliency(), GradCAM()], target=TopK(2))
    expected = result.overlay("grad_cam", target=1, opacity=0.5, cmap="viridis", background="gray")
    np.testing.assert_array_equal(Image.open(io.BytesIO(response.content)), expected)
    first = post(http, PHOTO, accept="image/png", **request)
    np.testing.assert_array_equal(Image.open(io.BytesIO(first.content)), result.overlay("saliency"))


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("*/*", "application/json"),
        ("application/*", "application/json"),
        ("image/*", "image/png"),
        ("text/html, application/x-npz;q=0.4, image/png;q=0.5", "image/png"),
        ("application/json;q=0.1, */*;q=0.2", "application/x-npz"),
    ],
)
def test_the_media_type_is_the_one_the_client_prefers(http, accept, media_type):
    assert post(http, PHOTO, accept=accept).headers["content-type"] == media_type


@pytest.mark.parametrize("accept", ["text/html", "application/json;q=0", "image/png;q=high", ""])
def test_a_client_that_accepts_nothing_of_it_is_refused(http, accept):
    response = post(http, PHOTO, accept=accept)
    assert (response.status_code, response.json()["reason"]) == (406, "NOT_ACCEPTABLE")


@pytest.mark.parametrize(
    ("query", "photos", "field"),
    [
        ({"array": "saliency"}, [PHOTO], "array"),
        ({"target": 3}, [PHOTO], "target"),
        ({"cmap": "rainbows"}, [PHOTO], "cmap"),
        ({"opacity": 2}, [PHOTO], "opacity"),
        ({"kind": "sketch"}, [PHOTO], "kind"),
        ({"colour": "red"}, [PHOTO], "colour"),
        ({}, [PHOTO, OTHER], "image"),
    ],
)
def test_a_picture_that_cannot_be_drawn_is_refused_by_field(http, query, photos, field):
    response = post(http, *photos, accept="image/png", query=query)
    assert response.status_code in {400, 422}, response.text
    assert response.json()["field"] == field


def test_a_picture_of_several_images_is_refused_before_anything_is_computed(http):
    response = post(http, PHOTO, OTHER, accept="image/png", model="gone")  # the server would refuse the model
    assert (response.status_code, response.json()["field"]) == (422, "image")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("null", None),
        ("207", 207),
        ('"tabby"', "tabby"),
        ('{"top_k": 3}', TopK(3)),
        ('"all"', ALL_UNITS),
        ('[207, null, "tabby", {"top_k": 2}, "all", [1, 2], ["a", "b"]]',
         [207, None, "tabby", TopK(2), ALL_UNITS, [1, 2], ["a", "b"]]),
    ],
)  # fmt: skip
def test_a_target_is_that_of_the_sdk(text, expected):
    assert parse_job_input(f'{{"target": {text}}}').arguments()["target"] == expected


@pytest.mark.parametrize(
    ("tag", "kind", "required"),
    [
        ("saliency", Saliency, {}),
        ("grad_cam", GradCAM, {}),
        ("activations", Activations, {"layers": ["a"]}),
        ("occlusion", Occlusion, {}),
    ],
)
def test_defaults_are_those_of_the_sdk(tag, kind, required):
    described = json.dumps({"visualizations": [{"type": tag, **required}]})
    (visualization,) = parse_job_input(described).arguments()["visualizations"]
    assert visualization.message() == kind(**required).message()
    blurred = json.dumps({"visualizations": [{"type": "saliency", "baselines": [{}]}]})
    assert parse_job_input(blurred).arguments()["visualizations"][0].baselines == [Blur()]


def test_what_is_left_out_is_the_default_of_the_sdk_s_calls():
    arguments, parameters = parse_job_input("{}").arguments(), inspect.signature(Client.visualize).parameters
    assert arguments.pop("visualizations")[0].message() == GradCAM().message()
    assert arguments == {name: parameters[name].default for name in arguments}


@pytest.mark.parametrize(
    ("request_text", "status", "field", "says"),
    [
        ("nope", 400, "request", "Invalid JSON"),
        ("[]", 422, "request", "object"),
        ('{"modell": "vgg16"}', 422, "modell", "did you mean model?"),
        ('{"zzz": 1}', 422, "zzz", "allowed: model, visualizations"),
        ('{"visualizations": [{"type": "saliency"}, {"type": "saliency", "metod": "guided"}]}', 422,
         "visualizations[1].metod", "did you mean method?"),
        ('{"visualizations": [{"type": "saliency", "method": "guide"}]}', 422, "visualizations[0].method", "'guided'"),
        ('{"visualizations": [{"type": "gradcam"}]}', 422, "visualizations[0]", "'grad_cam'"),
        ('{"visualizations": [{"type": "activations"}]}', 422, "visualizations[0].layers", "required"),
        ('{"visualizations": [{"type": "saliency", "output": {"siz": [1, 2]}}]}', 422,
         "visualizations[0].output.siz", "did you mean size?"),
        ('{"visualizations": [{"type": "saliency", "baselines": ["pink"]}]}', 422,
         "visualizations[0].baselines[0]", "black, white, gray"),
        ('{"target": 1.5}', 422, "target", "an index, a label"),
        ('{"target": true}', 422, "target", "an index, a label"),
        ('{"fresh": "yes"}', 422, "fresh", "boolean"),
        ('{"timeout": 0}', 422, "timeout", "greater than 0"),
        ('{"datatype": "int8"}', 422, "datatype", "'uint8'"),
        ('{"model": "resnet"}', 404, "spec.model", "served are: vgg16"),
        ('{"visualizations": [{"type": "saliency", "samples": 0}]}', 400, "samples", "1 or more"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_refused_by_field(http, request_text, status, field, says):
    response = http.post("/v1/visualize", files={"image": ("a.png", PHOTO)}, data={"request": request_text})
    problem = response.json()
    assert (response.status_code, problem["status"], problem["field"]) == (status, status, field), problem
    assert says in problem["detail"]


@pytest.mark.parametrize(
    ("parts", "status", "field"),
    [
        ([("request", (None, "{}"))], 422, "image"),
        ([("image", (None, "text"))], 422, "image"),
        ([("picture", ("a.png", PHOTO))], 422, "picture"),
        ([("image", ("a.png", PHOTO)), ("request", (None, "{}")), ("request", (None, "{}"))], 422, "request"),
        ([("image", ("a.png", PHOTO)), ("request", ("r.json", b" " * (200 << 10) + b"{}"))], 422, "request"),
        ([("image", ("a.png", b""))], 400, "images"),
    ],
)
def test_a_form_of_other_parts_is_refused(http, parts, status, field):
    response = http.post("/v1/visualize", files=parts)
    assert (response.status_code, response.json()["field"]) == (status, field), response.text


def test_the_request_may_be_a_part_with_a_file_name_as_browsers_send_it(http):
    described = json.dumps({"visualizations": [{"type": "saliency"}]}).encode()
    parts = {"image": ("a.png", PHOTO), "request": ("blob", described, "application/json")}
    assert list(arrays(http.post("/v1/visualize", files=parts))) == ["saliency"]


@pytest.mark.parametrize("content_type", ["application/json", "", "multipart/mixed; boundary=x"])
def test_another_body_than_a_form_is_refused(http, content_type):
    response = http.post("/v1/visualize", content=b"{}", headers={"Content-Type": content_type})
    assert (response.status_code, response.json()["reason"]) == (415, "UNSUPPORTED_MEDIA_TYPE")


def test_a_form_that_is_cut_off_is_refused(http):
    response = http.post(
        "/v1/visualize", content=b"--x\r\nContent-Disposition: form-data; name=", headers={
            "Content-Type": "multipart/form-data; boundary=x"},
    )  # fmt: skip
    assert response.status_code in {400, 422}
    assert response.headers["content-type"] == "application/problem+json"


def test_a_picture_of_a_large_photo_is_reduced(http):
    response = post(http, png(2000, 3000), accept="image/png")
    with Image.open(io.BytesIO(response.content)) as drawn:
        assert 2_900_000 < drawn.width * drawn.height <= 3_000_000
        assert abs(drawn.width / drawn.height - 1.5) < 0.01


def test_no_picture_is_drawn_on_what_only_a_process_of_its_own_decodes(http):
    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, "AVIF")
    assert post(http, file.getvalue()).status_code == 200
    refused = post(http, file.getvalue(), accept="image/png")
    assert (refused.status_code, refused.json()["field"]) == (422, "image")


def test_no_picture_is_drawn_on_a_photo_that_takes_too_much_memory(http, monkeypatch):
    monkeypatch.setattr("convlens.web.drawing._DECODED_BYTES", 1 << 20)
    refused = post(http, png(300, 300), accept="image/png")
    assert (refused.status_code, refused.json()["reason"]) == (413, "REQUEST_TOO_LARGE")
