"""The gRPC front: validation, admission, waiting and streaming. Knows no TensorFlow."""
