"""The port at its end: connections that nobody will accept are not begun."""

import os
import socket
from collections.abc import Iterable
from typing import Protocol


class Bound(Protocol):
    """A listening socket, whatever wraps it."""

    def fileno(self) -> int:
        """Its file descriptor."""
        ...


def let_nobody_queue_up(listening: Iterable[Bound]) -> None:
    """Have the kernel complete no more connections than are accepted: those in its queue are reset at the port's end.

    Newcomers are left unanswered, and refused once the port is closed, so that no client believes to be connected. The
    queue of a port that processes share is one: this is for when all of them are to end.
    """
    for bound in listening:
        with socket.socket(fileno=os.dup(bound.fileno())) as same:
            same.listen(0)
