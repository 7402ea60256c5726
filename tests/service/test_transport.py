"""The transport to the client, and how it is closed."""

import asyncio
from collections.abc import Callable
from functools import partial

import pytest

from service.transport import MIN_BYTES_TAKEN, ClientTransport
from tests.service.wire import Wire


class Loop:
    """Remembers the calls that are scheduled."""

    def __init__(self) -> None:
        self.later: list[Callable[[], None]] = []

    def call_later(self, _seconds: float, callback: Callable[..., None], *args: object) -> None:
        self.later.append(partial(callback, *args))

    def end_of_turn(self) -> None:
        later, self.later = self.later, []
        for callback in later:
            callback()


def made(*, is_sending: bool = False) -> tuple[ClientTransport, Wire, Loop]:
    transport, loop = Wire(), Loop()
    inner: asyncio.Transport = transport  # type: ignore[assignment]
    return ClientTransport(inner, loop, lambda: is_sending), transport, loop  # type: ignore[arg-type]


@pytest.mark.parametrize("too_little", [0, MIN_BYTES_TAKEN - 1])
def test_connection_ends_when_its_client_takes_next_to_nothing(too_little: int) -> None:
    """Its progress is checked regularly; a client that has read enough between two checks may read on."""
    subject, transport, loop = made()
    transport.untaken = 5 * MIN_BYTES_TAKEN
    subject.write(b"a" * transport.untaken)
    subject.close()
    for _ in range(3):
        transport.untaken -= MIN_BYTES_TAKEN
        loop.end_of_turn()
        assert not transport.is_aborted

    transport.untaken -= too_little
    loop.end_of_turn()

    assert transport.is_aborted


@pytest.mark.parametrize("taken", [99, 100])
def test_small_answer_is_to_be_taken_as_a_whole(taken: int) -> None:
    """It has fewer bytes than a client must read of a large one; what is written meanwhile has its own time."""
    subject, transport, loop = made()
    subject.write(b"a" * 100)
    transport.untaken = 100
    subject.abort_if_stalled()
    subject.write(b"b" * 100)
    transport.untaken = 200 - taken

    loop.end_of_turn()

    assert transport.is_aborted == (taken < 100)


def test_client_that_takes_while_more_is_written_is_not_stalled() -> None:
    """The number of bytes read counts, not the number of bytes left."""
    subject, transport, loop = made()
    subject.write(b"a" * 100)
    transport.untaken = 50
    subject.abort_if_stalled()
    subject.abort_if_stalled()
    assert len(loop.later) == 1, "a second watch is none"
    subject.write(b"b" * 100)
    transport.untaken = 100

    loop.end_of_turn()

    assert not transport.is_aborted
    transport.untaken = 0
    loop.end_of_turn()
    assert not loop.later, "all was taken: nobody looks any more"
    assert not transport.is_aborted


def test_connection_whose_client_took_all_is_closed_and_forgotten() -> None:
    """There is nothing left to check."""
    subject, transport, loop = made()

    subject.close()

    assert transport.is_closed
    assert not loop.later


def test_client_that_still_sends_is_read_for_a_while() -> None:
    """Its response is completed, and what it sends is read and ignored; after a while the connection is closed."""
    subject, transport, loop = made(is_sending=True)
    transport.pause_reading()

    subject.write(b"HTTP/1.1 413 Request Entity Too Large\r\n\r\n")
    subject.close()
    subject.write(b"more")

    assert transport.writes == [b"HTTP/1.1 413 Request Entity Too Large\r\n\r\n"]
    assert transport.is_ended
    assert transport.is_reading
    assert subject.is_closing()
    assert not transport.is_closed
    loop.end_of_turn()
    assert transport.is_closed


def test_client_that_is_read_for_a_while_is_closed_when_told_so_again() -> None:
    """A server that shuts down does not wait for it."""
    subject, transport, _ = made(is_sending=True)

    subject.close()
    subject.close()

    assert transport.is_closed
