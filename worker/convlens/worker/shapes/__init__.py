"""`shapes`, the small model that ships with the worker: a VGG16 with an eighth of the channels, and its scenes.

This package imports no TensorFlow; `shapes.model` does.
"""

from convlens.worker.shapes.scenes import LABELS, SIZE, Scene, draw

__all__ = ["LABELS", "SIZE", "Scene", "draw"]
