"""Images that a client sends, as a server has them once it has read the request."""

from __future__ import annotations

from convlens.server.requests import reader
from convlens.v1.visualization_pb2 import VisualizeRequest


def received(packed):
    """The Image messages, without their bytes, and the bytes of each."""
    request = reader(VisualizeRequest)(b"".join(image.serialized for image in packed))
    return request.message.spec.images, request.images
