"""Base class of the errors of training, checkpoints and data. Needs no PyTorch, so that any module can catch it."""


class ModelError(Exception):
    """Something is wrong with a model, its data or its training; the message says what."""


class TrainingStoppedError(ModelError):
    """A signal stopped a training run, which was saved."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code
