"""Everything that can go wrong with a request or a start, split by whose fault it is.

    GlimpseError
    ├── ClientError               the request cannot be served as it is; sending it again does not help
    │   ├── UndecodableInput      the body is not what it claims to be, or is damaged
    │   ├── TooLarge              the body or the picture in it is over a limit
    │   ├── UnsupportedType       a content type that Glimpse does not read
    │   ├── InvalidParameter      a parameter is out of range; the error knows its name
    │   ├── UnknownModel          no such model or version
    │   ├── UnknownTask           no such task
    │   └── Unauthorized          no API key, or a wrong one
    ├── CapacityError             no one's fault: the same request may succeed later
    │   ├── Overloaded            there is no room in the queue, in memory, or for one more request
    │   ├── NotReady              starting, draining, or recovering
    │   ├── DeadlineExceeded      the deadline passed before the answer was there
    │   └── StreamTooSlow         a streaming client took nothing for too long
    ├── ServerError               ours
    │   ├── InferenceFailed       the runtime failed on this input
    │   ├── ArtifactRejected      a model file is missing, damaged or not what its manifest says
    │   └── DeviceUnavailable     the device that was asked for is not there
    └── Cancelled                 the client has gone; nobody reads the answer

These errors know no HTTP; what a status is, `api.problems` decides. `code` is part of the contract: stable,
whatever becomes of the class's name. A message names the offending value and the allowed range.
"""

# ruff: noqa: N818 - the names say what happened; that they are errors, the tree says
from typing import ClassVar


class GlimpseError(Exception):
    """The root of everything that Glimpse raises on purpose."""

    code: ClassVar[str] = "internal-error"


class ClientError(GlimpseError):
    """The request cannot be served as it is."""

    code = "bad-request"


class UndecodableInput(ClientError):
    """A body is empty, damaged, or not what it claims to be."""

    code = "undecodable"


class TooLarge(ClientError):
    """A body has too many bytes, or a picture too many pixels."""

    code = "too-large"


class UnsupportedType(ClientError):
    """A content type that Glimpse does not read."""

    code = "unsupported-type"


class InvalidParameter(ClientError):
    """A parameter is out of range.

    Args:
        parameter: its name, as the client wrote it.
        message: what it must be and what it was; reads on from the name: "must be 28..1024, not 5".
    """

    code = "invalid-parameter"

    def __init__(self, parameter: str, message: str) -> None:
        super().__init__(parameter, message)
        self.parameter = parameter
        self.message = message

    def __str__(self) -> str:
        return f"{self.parameter} {self.message}"


class UnknownModel(ClientError):
    """No model of this name, or no such version of it."""

    code = "unknown-model"


class UnknownTask(ClientError):
    """No task of this name."""

    code = "unknown-task"


class Unauthorized(ClientError):
    """No API key where one is needed, or a wrong one."""

    code = "unauthorized"


class CapacityError(GlimpseError):
    """The request is in order, but not now."""

    code = "unavailable"


class Overloaded(CapacityError):
    """There is no room: in a queue, in memory, or for one more request."""

    code = "overloaded"


class NotReady(CapacityError):
    """Starting, draining, or recovering."""

    code = "not-ready"


class DeadlineExceeded(CapacityError):
    """The deadline passed before the answer was there."""

    code = "deadline-exceeded"


class StreamTooSlow(CapacityError):
    """A streaming client took nothing for too long."""

    code = "stream-too-slow"


class ServerError(GlimpseError):
    """Something on our side failed."""

    code = "server-error"


class InferenceFailed(ServerError):
    """The runtime failed on an input that was given to it alone, or gave another answer than it should."""

    code = "inference-failed"


class ArtifactRejected(ServerError):
    """A model file is missing, damaged, or not what its manifest says."""

    code = "artifact-rejected"


class DeviceUnavailable(ServerError):
    """The device that was asked for is not there, or does not work."""

    code = "device-unavailable"


class Cancelled(GlimpseError):
    """The client has gone; its work was dropped."""

    code = "cancelled"
