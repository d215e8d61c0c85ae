"""Packed images as the server parses them from a request."""

from __future__ import annotations

from convlens.server.requests import make_parser
from convlens.v1.visualization_pb2 import VisualizeRequest


def parse_images(packed):
    """Return the Image messages without their bytes, and the bytes of each image."""
    request = make_parser(VisualizeRequest)(b"".join(image.serialized for image in packed))
    return request.message.spec.images, request.images
