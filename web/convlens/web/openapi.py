"""The OpenAPI document: schemas of what the gateway takes and returns, made of the SDK's dataclasses."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import textwrap
from typing import Any, Final, Literal, get_args, get_type_hints

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, Field, create_model
from pydantic.json_schema import models_json_schema

from convlens.client import (
    Explanation,
    JobErrorInfo,
    JobStatus,
    Layer,
    Limits,
    ModelCard,
    Prediction,
    RefusedModel,
    ServerInfo,
    Timing,
)
from convlens.client.job_status import StateName
from convlens.client.options import DType
from convlens.web.events import MEDIA_TYPE as EVENT_STREAM
from convlens.web.job_input import JobInput
from convlens.web.problems import MEDIA_TYPE as PROBLEM
from convlens.web.results import JSON, NPZ, PNG

_PREFIX: Final = "#/components/schemas/"


def _schema_of(kind: type[Any], **annotations: Any) -> type[BaseModel]:
    """Return a model of a dataclass' JSON; `annotations` are the types of fields whose JSON has another type."""
    hints, descriptions = get_type_hints(kind), _field_docstrings(kind)
    fields: dict[str, Any] = {
        field.name: (annotations.get(field.name, hints[field.name]), Field(description=descriptions.get(field.name)))
        for field in dataclasses.fields(kind)
    }
    return create_model(kind.__name__, __doc__=inspect.getdoc(kind), **fields)


def _field_docstrings(kind: type[Any]) -> dict[str, str]:
    """Return the docstring under each field of a class."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    statements = definition.body if isinstance(definition, ast.ClassDef) else []
    return {
        field.target.id: inspect.cleandoc(str(text.value.value))
        for field, text in itertools.pairwise(statements)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
    }


def _model(name: str, doc: str, /, **fields: tuple[Any, str]) -> type[BaseModel]:
    """Return a model of a JSON object: of each field its type and description."""
    annotated: dict[str, Any] = {key: (kind, Field(description=text)) for key, (kind, text) in fields.items()}
    return create_model(name, __doc__=doc, **annotated)


_CARD: Final[Any] = _schema_of(ModelCard, layers=list[_schema_of(Layer)], labels=list[str] | None)  # type: ignore[misc]
_STATES: Final[Any] = Literal[(*get_args(StateName), "unknown")]
_JOB: Final[Any] = _schema_of(JobStatus, state=_STATES, error=_schema_of(JobErrorInfo) | None)
_ARRAY: Final[Any] = _model(
    "Array", "An array of a result.",
    name=(str, "such as grad_cam, saliency/guided or activations/LAYER"),
    shape=(list[int], "images first"),
    dtype=(Literal[get_args(DType)], "of the elements"),
    scale=(list[float] | None, "uint8: of each map, in the order of the leading axes: value = offset + scale·byte"),
    offset=(list[float] | None, "see scale"),
    signed=(bool, "true if negative values speak against the target"),
    channels=(list[int] | None, "the layer's channels on the last axis; null: all"),
    data=(str, "base64 of the elements: little-endian, the last axis fastest"),
)  # fmt: skip
MODELS: Final[dict[str, Any]] = {
    "Problem": _model(
        "Problem", "An error, as of RFC 9457.",
        type=(Literal["about:blank"], "the status says it all"),
        title=(str, "the name of the status"),
        status=(int, "the HTTP status"),
        detail=(str, "what is wrong, for people"),
        reason=(str, "what is wrong, for programs: UPPER_SNAKE, as in docs/errors.md"),
        field=(str | None, "the field of the request at fault"),
        job_id=(str | None, "the job that failed"),
        retry_after=(float | None, "seconds after which to try again"),
    ),
    "ServerInfo": create_model(
        "ServerInfo", __base__=_schema_of(ServerInfo, limits=_schema_of(Limits)),
        address=(str, Field(description="HOST:PORT at which the gateway calls the server")),
    ),
    "ModelCard": _CARD,
    "Models": _model(
        "Models", "The models of a server.",
        models=(list[_CARD], "those that are served"),
        refused=(list[_schema_of(RefusedModel)], "those that workers were to serve and cannot"),  # type: ignore[misc]
    ),
    "JobStatus": _JOB,
    "Jobs": _model("Jobs", "Jobs, newest first.", jobs=(list[_JOB], "jobs")),
    "Result": _model(
        "Result", "What was computed.",
        job_id=(str, "the job"),
        model=(str, "the model's name"),
        cached=(bool, "true if the result of an equal request answered"),
        images=(int, "how many there are"),
        predictions=(list[list[_schema_of(Prediction)]], "per image: the best classes, descending"),  # type: ignore[misc]
        explained=(
            list[dict[str, list[_schema_of(Explanation)]]],  # type: ignore[misc]
            "per image, by array: what its map explains, one for each target",
        ),
        timing=(_schema_of(Timing), "where the time went, in seconds"),
        has_target_axis=(bool, "true if the second axis of maps is that of several targets"),
        arrays=(list[_ARRAY], "the arrays"),
    ),
}  # fmt: skip
"""The schemas of responses, by name."""


def _content(media_type: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {media_type: {"schema": schema}}


_BINARY: Final = {"type": "string", "format": "binary"}
PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    status: {"description": text, "content": _content(PROBLEM, {"$ref": f"{_PREFIX}Problem"})}
    for status, text in (("4XX", "the request is at fault"), ("5XX", "the service is"))
}
"""The responses of every operation that fails."""
RESULT: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "the arrays, as JSON, or as .npz; or a picture of one map",
        "content": _content(JSON, {"$ref": f"{_PREFIX}Result"}) | _content(NPZ, _BINARY) | _content(PNG, _BINARY),
    }
}
"""The response of operations that return a result."""
EVENTS: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "events `job`: a JobStatus each", "content": _content(EVENT_STREAM, {"type": "string"})}
}
"""The response of operations that follow a job."""


def returns(schema: str, status: int = 200) -> dict[int | str, dict[str, Any]]:
    """Return the response of an operation that returns JSON of this schema."""
    content = _content(JSON, {"$ref": f"{_PREFIX}{schema}"})
    return {status: {"description": MODELS[schema].__doc__, "content": content}}


def describe(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document of the application."""
    document = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
    kinds: list[tuple[Any, Any]] = [(JobInput, "validation"), *((kind, "serialization") for kind in MODELS.values())]
    _, definitions = models_json_schema(kinds, ref_template=f"{_PREFIX}{{model}}")
    components = document.setdefault("components", {})
    components.setdefault("schemas", {}).update(definitions["$defs"])
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"token": []}, {}]
    return document
