"""The port: one that several processes share, and its end, where connections that nobody will accept are not begun."""

import os
import socket
from collections.abc import Callable, Iterable
from typing import Protocol


class SharedPort(socket.socket):
    """A bound port that is passed on to processes which listen on it, each with a socket of its own.

    From a socket that all accept from, whoever happens to be awake takes most: of 64 connections that come at once, one
    of two processes often had 50 or all. The kernel (Linux's, at least) deals them out by a hash instead.
    """

    @classmethod
    def bound(cls, family: int, address: tuple[str, int]) -> "SharedPort":
        """A socket with this address; any number may have it that are made here."""
        port = cls(family)
        port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        port.bind(address)
        return port

    def __reduce__(self) -> tuple[Callable[..., "SharedPort"], tuple[int, tuple[str, int]]]:
        """In the process that it is passed on to it is another socket."""
        return SharedPort.bound, (int(self.family), self.getsockname()[:2])


class Bound(Protocol):
    """A listening socket, whatever wraps it."""

    def fileno(self) -> int:
        """Its file descriptor."""
        ...


def let_nobody_queue_up(listening: Iterable[Bound]) -> None:
    """Have the kernel complete no more connections than are accepted: those in its queue are reset at the port's end.

    Newcomers are left unanswered, and refused once the port is closed, so that no client believes to be connected.
    """
    for bound in listening:
        with socket.socket(fileno=os.dup(bound.fileno())) as same:
            same.listen(0)
