"""Authentication: callers, tokens, TLS, and the files that these are read from."""
