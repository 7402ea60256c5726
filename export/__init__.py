"""From a checkpoint to an artifact that can be served: ONNX, TorchScript, parity and the manifest."""
