"""The three services of convlens.v1: each method checks its request, makes one call to the gateway, and responds."""

from importlib import metadata
from typing import Any, Final

VERSION: Final = metadata.version("convlens-server")
"""Of this server, as GetServerInfo and the trailing metadata of every call give it."""
Context = Any
"""A grpc.aio.ServicerContext, whose stubs fit no generated servicer."""
