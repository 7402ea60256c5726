"""One write a response."""

import asyncio
from collections.abc import Callable

from service.corked import CorkedTransport


class Loop:
    """Remembers what is to be called at the end of its turn."""

    def __init__(self) -> None:
        self.later: list[Callable[[], None]] = []

    def call_later(self, _seconds: float, callback: Callable[[], None]) -> None:
        self.later.append(callback)

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.later.append(callback)

    def end_of_turn(self) -> None:
        for callback in self.later:
            callback()


class Transport:
    """Remembers what was written, and that it was closed."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.is_closed = False
        self.is_aborted = False
        self.untaken = 0

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_aborted = True

    def get_write_buffer_size(self) -> int:
        return self.untaken

    def is_closing(self) -> bool:
        return self.is_closed


def corked() -> tuple[CorkedTransport, Transport, Loop]:
    transport, loop = Transport(), Loop()
    made: asyncio.Transport = transport  # type: ignore[assignment]
    return CorkedTransport(made, loop), transport, loop  # type: ignore[arg-type]


def test_head_and_body_leave_in_one_write() -> None:
    """The head waits for the body."""
    subject, transport, loop = corked()

    subject.write(b"HTTP/1.1 200 OK\r\n\r\n")
    subject.write(b"body")
    loop.end_of_turn()

    assert transport.written == [b"HTTP/1.1 200 OK\r\n\r\nbody"]


def test_head_without_a_body_leaves_at_the_end_of_the_turn() -> None:
    """A stream's head does not wait for its first event."""
    subject, transport, loop = corked()

    subject.write(b"HTTP/1.1 200 OK\r\n\r\n")
    assert transport.written == []
    loop.end_of_turn()

    assert transport.written == [b"HTTP/1.1 200 OK\r\n\r\n"]


def test_what_follows_is_not_held_back() -> None:
    """Later parts of a body are written as they come, and in order."""
    subject, transport, loop = corked()

    subject.write(b"HTTP/1.1 200 OK\r\n\r\n")
    subject.write(b"one")
    subject.write(b"two")
    subject.write(b"HTTP/1.1 404 Not Found\r\n\r\n")
    subject.write(b"three")
    loop.end_of_turn()

    assert transport.written == [b"HTTP/1.1 200 OK\r\n\r\none", b"two", b"HTTP/1.1 404 Not Found\r\n\r\nthree"]


def test_closing_loses_nothing() -> None:
    """What was held back is written before the transport is closed."""
    subject, transport, _ = corked()

    subject.write(b"HTTP/1.1 204 No Content\r\n\r\n")
    subject.close()

    assert transport.written == [b"HTTP/1.1 204 No Content\r\n\r\n"]
    assert transport.is_closed
    assert subject.is_closing()


def test_connection_ends_though_its_client_takes_nothing() -> None:
    """What a client has not taken some time after the close is dropped, and the connection with it."""
    patient, patient_transport, patient_loop = corked()
    stuck, stuck_transport, stuck_loop = corked()
    stuck_transport.untaken = 1000

    for subject in (patient, stuck):
        subject.close()
    for loop in (patient_loop, stuck_loop):
        loop.end_of_turn()

    assert stuck_transport.is_aborted
    assert not patient_transport.is_aborted
