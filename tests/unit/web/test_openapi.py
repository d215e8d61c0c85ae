"""The OpenAPI document: every field is described, and the gateway keeps to it."""

from __future__ import annotations

import inspect

import hypothesis
import pytest
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from convlens.client import Activations, GradCAM, JobStatus, ModelCard, Occlusion, Saliency
from convlens.web.app import create_app
from convlens.web.settings import WebSettings

DOCUMENT = create_app(WebSettings()).openapi()
SCHEMAS = DOCUMENT["components"]["schemas"]
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


OPERATIONS = {
    operation.ok().label: operation.ok() for operation in schemathesis.openapi.from_dict(DOCUMENT).get_all_operations()
}


@pytest.mark.parametrize("label", OPERATIONS)
def test_any_request_gets_what_the_document_says(http, label):
    @hypothesis.settings(max_examples=12, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
    @hypothesis.given(case=OPERATIONS[label].as_strategy())
    def send(case):
        case.call_and_validate(base_url=str(http.base_url), checks=CHECKS, timeout=30)

    send()


@pytest.mark.parametrize("kind", [Saliency, GradCAM, Activations, Occlusion])
def test_a_visualization_has_the_fields_of_the_sdk_each_with_a_description(kind):
    properties = SCHEMAS[kind.__name__]["properties"]
    assert list(properties) == ["type", *inspect.signature(kind).parameters]
    assert all(field.get("description") for field in properties.values())


@pytest.mark.parametrize("name", ["JobInput", "BestClasses", "BlurredImage", "Output", "Result", "Array", "Problem"])
def test_every_field_of_the_gateway_s_own_has_a_description(name):
    fields = SCHEMAS[name]["properties"]
    assert fields
    assert all(field.get("description") for field in fields.values())


@pytest.mark.parametrize("kind", [JobStatus, ModelCard])
def test_what_the_sdk_says_of_a_field_is_in_the_document(kind):
    properties = SCHEMAS[kind.__name__]["properties"]
    assert list(properties) == list(inspect.signature(kind).parameters)
    assert SCHEMAS["JobStatus"]["properties"]["end_time"]["description"] == "None until the job has ended."


def test_every_operation_says_how_it_fails_and_what_it_does():
    operations = [operation for path in DOCUMENT["paths"].values() for operation in path.values()]
    assert len(operations) == 11
    for operation in operations:
        assert operation["description"]
        assert all(parameter.get("description") for parameter in operation.get("parameters", []))
        assert {"4XX", "5XX"} <= operation["responses"].keys()
    assert not {"ValidationError", "HTTPValidationError"} & SCHEMAS.keys()
