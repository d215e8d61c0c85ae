"""The wire of Convlens: generated messages and stubs of the package convlens.v1, and the tensor codec."""
