"""Runtimes: the only code that depends on ONNX Runtime or TorchScript, and the model repository they load from."""
