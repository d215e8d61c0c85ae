"""The server and its models over HTTP: the keys and values of the SDK."""

from __future__ import annotations

from convlens.client import Client
from convlens.client.json_values import to_json_value


def test_the_server_and_its_models_are_those_of_the_sdk(http, target):
    with Client(target) as client:
        assert http.get("/v1/server").json() == {"address": target, **to_json_value(client.server_info())}
        assert http.get("/v1/models").json() == {"models": to_json_value(client.models()), "refused": []}
        assert http.get("/v1/models/vgg16").json() == to_json_value(client.model("vgg16"))


def test_an_unknown_model_is_a_problem_that_names_those_there_are(http):
    response = http.get("/v1/models/resnet")
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json() == {
        "type": "about:blank", "title": "Not Found", "status": 404, "reason": "MODEL_UNKNOWN", "field": "name",
        "detail": "name: no model 'resnet'; served are: vgg16", "job_id": None, "retry_after": None,
    }  # fmt: skip
