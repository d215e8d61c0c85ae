"""The operations a VGG-like chain is made of, each with its forward and its written-out backward rule.

Gradients come as a list of streams, one a target and rule: all share the forward values. A stream has a rule,
and only the rectifiers make a difference between rules.
"""

from convlens.worker.engine.ops.base import Op, Weights
from convlens.worker.engine.ops.pools import AveragePool, GlobalAverage, GlobalMax, MaxPool
from convlens.worker.engine.ops.products import Affine, Convolution, Dense
from convlens.worker.engine.ops.rectifiers import RECTIFIERS, LeakyRelu, Relu
from convlens.worker.engine.ops.shapes import Identity, Pad, Probability, Reshape
from convlens.worker.engine.ops.taped import Taped

__all__ = [
    "RECTIFIERS",
    "Affine",
    "AveragePool",
    "Convolution",
    "Dense",
    "GlobalAverage",
    "GlobalMax",
    "Identity",
    "LeakyRelu",
    "MaxPool",
    "Op",
    "Pad",
    "Probability",
    "Relu",
    "Reshape",
    "Taped",
    "Weights",
]
