"""Values of the SDK as JSON: of the command's `--json`, and of the HTTP gateway.

Keys are the names of the SDK's dataclasses' fields. Times are ISO 8601 in UTC, states and priorities are words, what is
not known is null, and so are infinity and NaN, which JSON does not have. Keys may be added, but are neither renamed nor
removed.
"""

from __future__ import annotations

import dataclasses
import math
from datetime import UTC, datetime
from enum import Enum
from typing import Any


def to_json_value(value: Any) -> Any:
    """Return a value made of dictionaries, lists, text and numbers."""
    if dataclasses.is_dataclass(value):
        return {field.name: to_json_value(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): to_json_value(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [to_json_value(inner) for inner in value]
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Enum) or not isinstance(value, int | None) else value
