"""The job queue on Redis: atomic transitions, the delivery of jobs to workers, and what looks after both."""
