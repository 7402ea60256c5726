"""Answers of recurrent models: whole, once every step is there, or step by step while later ones are computed."""

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
"""Most events that are encoded at once; the first ones of many samples need not wait for the last."""


class Work(Protocol):
    """A request on its way through a recurrent model, and what is answered of it."""

    @property
    def request(self) -> Request:
        """What is computed."""
        ...

    @property
    def answer_format(self) -> str:
        """`sse` is step by step."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Of every answer."""
        ...

    @property
    def answer_bytes(self) -> int:
        """Most memory that the whole response takes while it is made, beside the outputs that it is made from."""
        ...

    @property
    def is_quick(self) -> bool:
        """Whether the answer is made within about 100 microseconds; then the event loop itself makes it."""
        ...

    def answer(self) -> Answer:
        """The whole answer, once every step is there."""
        ...

    def step(self, step: int, row: int) -> object:
        """The data of a step's event; called off the event loop, as is the next."""
        ...

    def summary(self) -> object:
        """The data of the last event, once every step is there."""
        ...


async def respond(context: Context, exchange: Exchange, send: Send, room: Reservation, work: Work) -> Answer | None:
    """Compute `work` in its reservation; return the response, or None once it was sent step by step.

    Raises:
        Overloaded, TooLarge: there is no memory left for what is computed, or for the response.
        GlimpseError: as `Engine.submit` and `send_events` do.
    """
    output_bytes = room.output_bytes(work.request)
    if work.answer_format == "sse":
        exchange.memory.take(output_bytes)
        exchange.memory.hold(output_bytes)  # a client may take long, and nothing else is needed for it
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
