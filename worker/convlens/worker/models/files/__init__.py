"""Read untrusted model files: formats, configurations, weights, memory; nothing in a file is executed."""
