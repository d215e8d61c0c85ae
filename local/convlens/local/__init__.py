"""Convlens on one machine: everything in one command."""
