"""Payloads (images in, tensors out) as raw bytes behind one small protocol, in Redis or in a shared folder."""
