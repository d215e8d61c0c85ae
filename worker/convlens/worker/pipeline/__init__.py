"""The way of a job through a worker, from its claim to its stored result."""
