"""A request's JobSpec, resolved against the model card it names: see plan.py. Knows no Redis."""
