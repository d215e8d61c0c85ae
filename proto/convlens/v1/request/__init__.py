"""A request's JobSpec, resolved against the model card it names: see resolve.py. Knows no Redis."""
