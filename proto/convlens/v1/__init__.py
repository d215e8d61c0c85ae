"""The wire of Convlens: generated messages and stubs of convlens.v1, and what all parts must agree on about them."""
