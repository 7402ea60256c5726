"""Runtimes: the one place that knows ONNX Runtime or TorchScript, and the repository that they load from."""
