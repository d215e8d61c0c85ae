"""gRPC interceptors, each with one concern."""
