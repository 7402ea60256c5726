"""The root of what training, checkpoints and data raise on purpose. Needs no PyTorch, so that anybody may catch it."""


class ModelError(Exception):
    """Something about a model, its data or its training is not as it must be; the message says what."""
