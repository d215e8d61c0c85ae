"""Run Convlens on one machine: by the command `convlens up`, or inside a `with serving()` block."""

from convlens.local.serving import serving

__all__ = ["serving"]
