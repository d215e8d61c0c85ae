"""Images that a client sends, as a server has them once it has read the request."""

from __future__ import annotations

from convlens.client.images import Outgoing
from convlens.server.requests import make_parser
from convlens.v1.visualization_pb2 import VisualizeRequest


def received(packed):
    """The Image messages, without their bytes, and the bytes of each."""
    request = make_parser(VisualizeRequest)(Outgoing(packed).finished(b""))
    return request.message.spec.images, request.images
