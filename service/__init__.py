"""The inference service: an HTTP API on top of batching engines, on top of runtimes.

It imports PyTorch only for the TorchScript runtime.
"""
