"""Answers of recurrent models: whole, once every step is there, or step by step while later ones are computed."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Protocol

from starlette.types import Send

from service.api.answer import Answer
from service.api.context import Context
from service.api.events import Event, encoded, send_events
from service.api.exchange import Exchange
from service.engine.engine import Progress, Reservation
from service.engine.request import Request


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
    def is_quick(self) -> bool:
        """Whether the answer is made within about 100 microseconds; then the event loop itself makes it."""
        ...

    def answer(self) -> Answer:
        """The whole answer, once every step is there."""
        ...

    def events(self, news: list[Progress]) -> list[Event]:
        """The events of new steps; called off the event loop, as is the next."""
        ...

    def summary(self) -> object:
        """The data of the last event, once every step is there."""
        ...


async def answered(context: Context, exchange: Exchange, send: Send, room: Reservation, work: Work) -> Answer | None:
    """Have work computed in the room that was kept for it; answers it, or None once it was sent step by step.

    Raises:
        GlimpseError: as `Engine.submit` and `send_events` do.
    """
    if work.answer_format == "sse":
        async with aclosing(_events(context, exchange, room, work)) as groups:
            await send_events(send, groups, work.headers)
        return None
    await exchange.compute(work.request, room)
    with exchange.timed("encode"):
        return work.answer() if work.is_quick else await context.codecs.run(work.answer)


async def _events(context: Context, exchange: Exchange, room: Reservation, work: Work) -> AsyncGenerator[bytes, None]:
    exchange.follow(work.request)
    async with aclosing(room.stream(work.request)) as steps:
        async for news in steps:
            with exchange.timed("encode"):
                events = await context.codecs.run(lambda news: encoded(work.events(news)), news)
            yield events
    with exchange.timed("encode"):
        end = await context.codecs.run(lambda: encoded([("done", work.summary())]))
    yield end
