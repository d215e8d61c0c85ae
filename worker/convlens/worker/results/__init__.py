"""How results are written: the output format of the arrays, and the header before them."""
