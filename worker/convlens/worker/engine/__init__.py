"""The mathematics: what did this VGG-like network look at? Arrays in, arrays out.

A library in its own right: it knows TensorFlow and Keras, and nothing of queues, wires or files. plan and outputs are
plain values that import neither.

    from convlens.worker.engine.network import Network
    from convlens.worker.engine.plan import Activation, GradCAM, Plan, Saliency

    network = Network(keras.applications.VGG16(), preprocess="caffe")
    plan = Plan((Saliency(), GradCAM("block5_conv3"), Activation("block1_conv1")))
    outputs = network.run(images, plan)          # images: uint8 or float32 RGB in 0…255, (N,H,W,3)
    outputs.maps[Saliency()]                     # (N,T,H,W) float32
"""
