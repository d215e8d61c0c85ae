"""Model files, read without running or believing anything in them: formats, configurations, weights, memory."""
