"""What the engine refuses. It knows layers by name and class, nothing of jobs or of the wire."""

from __future__ import annotations


class UnsupportedLayer(ValueError):  # noqa: N818 - the surface's name
    """A model holds something the engine has no rule for, found when the model is loaded.

    Attributes: layer (its name), kind (its class), reason, supported (the classes that have a rule).
    """

    def __init__(self, layer: str, kind: str, reason: str, supported: tuple[str, ...]) -> None:
        super().__init__(f"layer {layer!r} ({kind}): {reason}. Supported: {', '.join(supported)}")
        self.layer = layer
        self.kind = kind
        self.reason = reason
        self.supported = supported
