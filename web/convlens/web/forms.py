"""Forms of images and what to compute on them: multipart/form-data, read within bounds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from fastapi import Request
from python_multipart.exceptions import FormParserError
from starlette.datastructures import UploadFile

from convlens.web.job_input import JobInput, parse_job_input
from convlens.web.problems import Problem
from convlens.web.settings import MAX_FIELD_BYTES, MAX_IMAGES

MEDIA_TYPE: Final = "multipart/form-data"
IMAGE: Final = "image"
REQUEST: Final = "request"
_CHARSET: Final = re.compile(r'charset\s*=\s*"?([^";\s]*)')
OPENAPI: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            MEDIA_TYPE: {
                "schema": {
                    "type": "object",
                    "required": [IMAGE],
                    "additionalProperties": False,
                    "properties": {
                        IMAGE: {
                            "type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"},
                            "description": "image files, in any format that the server decodes",
                        },
                        REQUEST: {"$ref": f"#/components/schemas/{JobInput.__name__}"},
                    },
                },
                "encoding": {REQUEST: {"contentType": "application/json"}},
            }
        },
    }
}  # fmt: skip
"""The body of the requests that submit a job."""


@dataclass(frozen=True, slots=True)
class JobForm:
    """A form that submits a job."""

    images: list[bytes]
    """The bytes of image files."""
    job: JobInput


async def read_form(request: Request) -> JobForm:
    """Read a form. Raises Problem 400 for one that is malformed, 415 for another media type, 422 for a wrong field."""
    media_type, _, parameters = request.headers.get("content-type", "").lower().partition(";")
    if media_type.strip() != MEDIA_TYPE:
        message = f"the body is to be {MEDIA_TYPE}, with image files as parts {IMAGE!r}, and {REQUEST!r} as JSON"
        raise Problem(415, "UNSUPPORTED_MEDIA_TYPE", message)
    if not set(_CHARSET.findall(parameters)) <= {"utf-8", "utf8"}:
        raise Problem(415, "UNSUPPORTED_MEDIA_TYPE", "the form's charset is to be utf-8, the default")
    try:
        return await _read_parts(request)
    except FormParserError as error:  # which older versions of Starlette let pass
        raise Problem(400, "BAD_REQUEST", f"the form is malformed: {error}") from None


async def _read_parts(request: Request) -> JobForm:
    images: list[bytes] = []
    described: list[str | bytes] = []
    async with request.form(max_files=MAX_IMAGES, max_fields=8, max_part_size=MAX_FIELD_BYTES) as form:
        for name, value in form.multi_items():
            content = await value.read() if isinstance(value, UploadFile) else value
            if name == IMAGE and isinstance(content, bytes):
                images.append(content)
            elif name == IMAGE:
                raise Problem(422, "INVALID_FIELD", f"{IMAGE}: is to be a file: its part has no filename", field=IMAGE)
            elif name == REQUEST and len(content) <= MAX_FIELD_BYTES and not described:
                described.append(content)
            else:
                message = f"{name}: allowed are parts {IMAGE!r}, and one {REQUEST!r} of {MAX_FIELD_BYTES} bytes"
                raise Problem(422, "INVALID_FIELD", message, field=name)
    if not images:
        raise Problem(422, "INVALID_FIELD", f"{IMAGE}: there is no image in the form", field=IMAGE)
    return JobForm(images, parse_job_input(described[0] if described else b"{}"))
