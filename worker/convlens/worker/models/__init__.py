"""The models a worker serves: where they come from, and what a served model can do."""
