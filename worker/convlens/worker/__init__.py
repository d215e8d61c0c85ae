"""The Convlens worker: named VGG16 models behind a queue, and the maps they give.

`engine` is the mathematics and a library in its own right; everything beside it makes a service of it.
"""
