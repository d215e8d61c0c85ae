"""Who calls: principals, tokens, TLS, and the files that these are read from."""
