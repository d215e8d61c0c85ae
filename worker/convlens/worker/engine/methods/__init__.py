"""Perturbation methods, one file each; `perturbation.py` says what a method is and runs them."""
