"""Fault injection under load: a stack of real processes, jobs with known results, a table of faults, a runner."""
