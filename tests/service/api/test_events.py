"""Server-sent events: sent as they arrive, and ended with an error if there is one."""

import asyncio
import json
from collections.abc import AsyncIterator

import numpy as np
import pytest
from starlette.types import Message

from service.api import events
from service.api.events import PIECE_BYTES, Event, encoded, send_events
from service.errors import GlimpseError, InferenceFailed, Overloaded, StreamTooSlow

STEP: Event = ("step", {"image": np.arange(6).reshape(2, 3)[:, :2]})


def sent(of: AsyncIterator[bytes], *, slow: bool = False) -> list[Message]:
    """Return the ASGI messages of a stream."""
    messages: list[Message] = []

    async def send(message: Message) -> None:
        messages.append(message)
        if slow and message["type"] == "http.response.body" and message.get("more_body"):
            await asyncio.Event().wait()

    try:
        asyncio.run(send_events(send, of, {"x-seed": "7"}))
    except GlimpseError as error:
        if not messages:
            raise
        messages.append({"raised": error})
    return messages


async def stream(*groups: list[Event], error: Exception | None = None) -> AsyncIterator[bytes]:
    for group in groups:
        yield encoded(group)
    if error is not None:
        raise error


def test_groups_are_sent_one_by_one_and_the_stream_is_closed() -> None:
    """There is one body message per group, with `more_body` until the last."""
    messages = sent(stream([STEP, STEP], [("done", {})]))

    head, *bodies = messages
    assert head["status"] == 200
    assert dict(head["headers"]) == {
        b"content-type": b"text/event-stream",
        b"cache-control": b"no-store",
        b"x-accel-buffering": b"no",
        b"x-seed": b"7",
    }
    assert [body["body"].count(b"event: ") for body in bodies] == [2, 1, 0]
    assert [body.get("more_body", False) for body in bodies] == [True, True, False]
    assert bodies[1]["body"] == b"event: done\ndata: {}\n\n"


def test_arrays_become_lists_contiguous_or_not() -> None:
    """Views into a batch's arrays are sent as they are."""
    _, first, _ = sent(stream([STEP]))

    data = first["body"].decode().splitlines()[1].removeprefix("data: ")
    assert json.loads(data) == {"image": [[0, 1], [3, 4]]}


def test_error_after_the_first_event_becomes_the_last_event() -> None:
    """It has the members of a problem document, since the status has already been sent."""
    *_, last, end = sent(stream([STEP], error=InferenceFailed("the model failed")))

    name, data = last["body"].decode().strip().split("\n")
    assert name == "event: error"
    problem = json.loads(data.removeprefix("data: "))
    assert (problem["status"], problem["code"], problem["detail"]) == (500, "inference-failed", "the model failed")
    assert not last.get("more_body", False)
    assert isinstance(end["raised"], InferenceFailed), "so that it is counted as what it is"


def test_error_before_the_first_event_is_raised() -> None:
    """The response can then still have the error's status."""
    with pytest.raises(Overloaded, match="full"):
        sent(stream(error=Overloaded("full")))


def test_stream_without_events_is_closed() -> None:
    """The body is empty, and there is no error."""
    head, body = sent(stream())

    assert head["status"] == 200
    assert body["body"] == b""


def test_client_that_takes_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its stream ends with an error once the longest stall has passed."""
    monkeypatch.setattr(events, "MAX_STALL_SECONDS", 0.01)

    *_, last, end = sent(stream([STEP], [STEP]), slow=True)

    assert b'"code":"stream-too-slow"' in last["body"]
    assert isinstance(end["raised"], StreamTooSlow)


def test_large_group_is_sent_in_pieces() -> None:
    """A client must only read one piece in time, not the whole group."""
    _, *pieces, last = sent(stream([("step", "a" * 3 * PIECE_BYTES)]))

    assert [len(piece["body"]) for piece in pieces][:3] == [PIECE_BYTES] * 3
    assert all(piece["more_body"] for piece in pieces)
    assert not last["more_body"]
    assert b"".join(piece["body"] for piece in pieces).endswith(b'a"\n\n')
