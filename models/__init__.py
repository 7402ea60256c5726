"""The models in PyTorch: networks, data, training and evaluation. Nothing here depends on the service."""
