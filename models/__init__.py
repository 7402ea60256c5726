"""The models, in PyTorch: networks, data, training and evaluation. Knows nothing of serving."""
