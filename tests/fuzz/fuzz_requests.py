"""Fuzz the parsing and validation of a request: any bytes give a job, or an error that names its field."""

from __future__ import annotations

import sys
import warnings

import atheris

with atheris.instrument_imports():
    from convlens.server.requests import make_parser
    from convlens.server.status import to_status_error
    from convlens.server.validation import Submission, validate
    from convlens.v1.status_error import StatusError

import grpc

from convlens.jobs.model_registry import LiveModels
from convlens.server.settings import ServerSettings
from convlens.v1 import job_pb2
from convlens.worker.models.null import NullModel
from convlens.worker.models.source import parse

SETTINGS = ServerSettings(max_image_pixels=1 << 20)
CARD = NullModel(parse("null=null")).card
CARD.name = "null"
LIVE = LiveModels({"null": CARD}, {"null": "null"}, ())
PARSE = make_parser(job_pb2.SubmitJobRequest)


def fuzz_one(data: bytes) -> None:
    """Parse and validate one SubmitJobRequest."""
    try:
        request = PARSE(data)
    except StatusError:
        return
    expected = job_pb2.SubmitJobRequest.FromString(data)
    for image, content in zip(expected.spec.images, request.images, strict=True):
        assert content == (image.pixels.data if image.WhichOneof("source") == "pixels" else image.encoded)
    try:
        valid = validate(request, Submission("", "", keep=True), LIVE, SETTINGS)
    except StatusError as error:
        status_error = to_status_error(error)
        assert status_error.code in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}
        assert status_error.field
        return
    assert 0 < valid.reserved <= 2 * SETTINGS.max_result_bytes
    assert len(valid.images) == len(expected.spec.images)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    atheris.Setup(sys.argv, fuzz_one)
    atheris.Fuzz()
