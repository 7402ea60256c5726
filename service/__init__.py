"""The inference service: HTTP in, engines inside, runtimes below.

Never imports PyTorch unless its runtime is chosen.
"""
