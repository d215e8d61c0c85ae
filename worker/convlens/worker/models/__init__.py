"""The models that a worker serves, and their sources."""
