"""How results are stored: the arrays in their output format, and the header that describes them."""
