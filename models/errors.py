"""The root of what training, checkpoints and data raise on purpose. Needs no PyTorch, so that anybody may catch it."""


class ModelError(Exception):
    """Something about a model, its data or its training is not as it must be; the message says what."""


class TrainingStoppedError(ModelError):
    """A signal stopped a training run, which has saved all that it did."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code
