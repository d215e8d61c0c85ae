"""What client and server must agree on beside the messages: metadata keys, and defaults that both rely on."""

from __future__ import annotations

from typing import Final

REQUEST_BYTES_KEY: Final = "convlens-request-bytes"
"""Metadata of a call: the size of its only request, so that a large one can be refused before it is sent."""
VERSION_KEY: Final = "convlens-version"
"""Trailing metadata of each call: the server's version."""
DEFAULT_TIMEOUT: Final = 300.0
"""Seconds from a job's submission to its end where the request sets no timeout."""
