"""`shapes`, the small model that ships with the worker: a VGG16 of an eighth of the channels, and the scenes it knows.

Importing this imports no TensorFlow; `build` and `load` do.
"""

from convlens.worker.shapes.scenes import LABELS, SIZE, Scene, draw

__all__ = ["LABELS", "SIZE", "Scene", "draw"]
