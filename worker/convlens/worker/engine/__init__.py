"""The mathematics: what did this VGG-like network look at? Arrays in, arrays out.

A library in its own right: it knows TensorFlow and Keras, and nothing of queues, wires or files.

    network = Network(keras.applications.VGG16(), preprocess="caffe")
    plan = Plan((Saliency(), GradCAM("block5_conv3"), Activation("block1_conv1")))
    outputs = network.run(images, plan)          # images: uint8 or float32 RGB in 0…255, (N,H,W,3)
    outputs.maps[Saliency()]                     # (N,T,H,W) float32
"""

from convlens.worker.engine.chain import UnsupportedLayer
from convlens.worker.engine.network import LayerInfo, Network, Outputs
from convlens.worker.engine.plan import ALL_UNITS, PREDICTED, Activation, GradCAM, Map, Plan, Saliency
from convlens.worker.engine.preprocess import PREPROCESS

__all__ = [
    "ALL_UNITS",
    "PREDICTED",
    "PREPROCESS",
    "Activation",
    "GradCAM",
    "LayerInfo",
    "Map",
    "Network",
    "Outputs",
    "Plan",
    "Saliency",
    "UnsupportedLayer",
]
