"""The operations of a chain, each with a forward pass and a backward pass that is written out.

Gradients are a list of streams, one for each target and rule; all share the forward values. Only rectifiers treat the
rules differently: plain gradients, guided backpropagation, deconvnet.
"""

from convlens.worker.engine.ops.base import Op, Weights
from convlens.worker.engine.ops.pools import AveragePool, GlobalAverage, GlobalMax, MaxPool
from convlens.worker.engine.ops.rectifiers import RECTIFIERS, LeakyRelu, Relu
from convlens.worker.engine.ops.reshaping import Identity, Pad, Probability, Reshape
from convlens.worker.engine.ops.taped import Taped
from convlens.worker.engine.ops.weighted import Affine, Convolution, Dense

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
