"""The Convlens worker: serves the jobs of named Keras models from the queue.

`engine` computes the maps and is a library in its own right; the other packages make a service of it.
"""
