"""The gRPC server: validates requests, submits jobs, waits for them, streams results. Does not import TensorFlow."""
