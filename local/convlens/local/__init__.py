"""Convlens on one machine: everything in one command, `convlens up`, or for the length of a `with`, `serving()`."""

from convlens.local.serving import serving

__all__ = ["serving"]
