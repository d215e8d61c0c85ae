"""What a request asks of a model, resolved against the model card. Knows no Redis."""
