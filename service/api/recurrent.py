"""Responses of recurrent models: complete, once all steps are computed, or streamed step by step."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Protocol

from starlette.types import Send

from service.api.answer import Answer
from service.api.context import Context
from service.api.events import MEDIA_TYPE as EVENTS
from service.api.events import encoded, send_events
from service.api.exchange import Exchange
from service.engine.engine import Reservation
from service.engine.request import Request

MAX_EVENTS = 16
"""Maximum number of events that are encoded at once, so that the first of many samples need not wait for the last."""


class Work(Protocol):
    """A request to a recurrent model, and how its response is made."""

    @property
    def request(self) -> Request:
        """Request to the engine."""
        ...

    @property
    def answer_format(self) -> str:
        """Name of the response's format; `sse` streams step by step."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers that the response carries in every format."""
        ...

    @property
    def answer_bytes(self) -> int:
        """Maximum memory that the complete response needs while it is encoded, in addition to the outputs."""
        ...

    @property
    def is_quick(self) -> bool:
        """Whether encoding the response takes less than about 100 microseconds; it is then done on the event loop."""
        ...

    def answer(self) -> Answer:
        """Return the complete response, once all steps are computed."""
        ...

    def step(self, step: int, row: int) -> object:
        """Return the data of a step's event. Called off the event loop, like `summary`."""
        ...

    def summary(self) -> object:
        """Return the data of the last event, once all steps are computed."""
        ...


async def respond(context: Context, exchange: Exchange, send: Send, room: Reservation, work: Work) -> Answer | None:
    """Compute `work` in its reservation; return the response, or None once it has been streamed.

    Raises:
        Overloaded, TooLarge: there is too little memory for the outputs or the response.
        GlimpseError: as `Engine.submit` and `send_events` do.
    """
    output_bytes = room.output_bytes(work.request)
    if work.answer_format == "sse":
        exchange.memory.take(output_bytes)
        exchange.memory.hold(output_bytes)  # a client may read slowly, and the stream needs nothing else
        async with aclosing(_events(context, exchange, room, work)) as groups:
            if not exchange.can_stream:
                return Answer(b"".join([group async for group in groups]), EVENTS, headers=dict(work.headers))
            await send_events(send, groups, work.headers)
        return None
    exchange.memory.take(output_bytes + work.answer_bytes)
    await exchange.compute(work.request, room)
    with exchange.timed("encode"):
        return work.answer() if work.is_quick else await context.codecs.run(work.answer)


async def _events(context: Context, exchange: Exchange, room: Reservation, work: Work) -> AsyncGenerator[bytes, None]:
    exchange.follow(work.request)
    async with aclosing(room.stream(work.request)) as steps:
        async for news in steps:
            new_steps = sorted(
                (step, progress.row) for progress in news for step in range(progress.begin, progress.end)
            )
            for begin in range(0, len(new_steps), MAX_EVENTS):
                with exchange.timed("encode"):
                    events = await context.codecs.run(_step_events, work, new_steps[begin : begin + MAX_EVENTS])
                yield events
    with exchange.timed("encode"):
        end = await context.codecs.run(lambda: encoded([("done", work.summary())]))
    yield end


def _step_events(work: Work, steps: list[tuple[int, int]]) -> bytes:
    return encoded([("step", work.step(step, row)) for step, row in steps])
