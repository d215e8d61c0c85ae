"""Images as a server receives what the client packed."""

from __future__ import annotations

from convlens.server.requests import make_parser
from convlens.v1.visualization_pb2 import VisualizeRequest


def received(packed):
    """The Image messages, without their bytes, and the bytes of each."""
    request = make_parser(VisualizeRequest)(b"".join(image.serialized for image in packed))
    return request.message.spec.images, request.images
