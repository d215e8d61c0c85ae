"""Faults under load: a stack of real processes, callers with known right answers, a table of faults, one runner."""
