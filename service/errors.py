"""The errors of requests and of the start, grouped by who is at fault.

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
    │   ├── DeadlineExceeded      the deadline passed before the response was ready
    │   └── StreamTooSlow         a streaming client read nothing for too long
    ├── ServerError               the service is at fault
    │   ├── InferenceFailed       the runtime failed on this input
    │   ├── ArtifactRejected      a model file is missing, damaged or not what its manifest says
    │   └── DeviceUnavailable     the chosen device is missing, or does not work
    └── Cancelled                 the client has disconnected; no response is needed

The errors know nothing of HTTP: `api.problems` maps them to statuses. `code` is part of the API, and stays the same
even if the class is renamed. A message names the offending value and the allowed range.
"""

# ruff: noqa: N818 - the names say what happened, without an `Error` at the end
from typing import ClassVar


class GlimpseError(Exception):
    """The base class of all errors that Glimpse raises on purpose."""

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
        message: what it must be, and what it was; it continues the name: "must be 28..1024, not 5".
    """

    code = "invalid-parameter"

    def __init__(self, parameter: str, message: str) -> None:
        super().__init__(parameter, message)
        self.parameter = parameter
        self.message = message

    def __str__(self) -> str:
        return f"{self.parameter} {self.message}"


class UnknownModel(ClientError):
    """There is no model of this name, or no such version of it."""

    code = "unknown-model"


class UnknownTask(ClientError):
    """There is no task of this name."""

    code = "unknown-task"


class Unauthorized(ClientError):
    """An API key is needed, and is missing or wrong."""

    code = "unauthorized"


class CapacityError(GlimpseError):
    """The request is valid, but cannot be served now."""

    code = "unavailable"


class Overloaded(CapacityError):
    """There is no room: in a queue, in memory, or for one more request."""

    code = "overloaded"


class NotReady(CapacityError):
    """The service is starting, draining, or recovering."""

    code = "not-ready"


class DeadlineExceeded(CapacityError):
    """The deadline passed before the response was ready."""

    code = "deadline-exceeded"


class StreamTooSlow(CapacityError):
    """A streaming client read nothing for too long."""

    code = "stream-too-slow"


class ServerError(GlimpseError):
    """The service is at fault."""

    code = "server-error"


class InferenceFailed(ServerError):
    """The runtime failed on an input that was run alone, or its outputs differ from those expected."""

    code = "inference-failed"


class ArtifactRejected(ServerError):
    """A model file is missing, damaged, or not what its manifest says."""

    code = "artifact-rejected"


class DeviceUnavailable(ServerError):
    """The chosen device is missing, or does not work."""

    code = "device-unavailable"


class Cancelled(GlimpseError):
    """The client has disconnected; its work was dropped."""

    code = "cancelled"
