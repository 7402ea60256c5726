"""Answers of recurrent models, as they are sent."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import httpx
from starlette.types import Message, Scope

from service.api.recurrent import MOST_EVENTS
from service.app import Glimpse

Serve = Callable[..., AbstractAsyncContextManager[tuple[Glimpse, httpx.AsyncClient]]]


def test_stream_of_many_samples_is_sent_in_pieces(serve: Serve) -> None:
    """The first of them need not wait until all are encoded."""
    scope: Scope = {
        "type": "http",
        "method": "GET",
        "path": "/draw/generate",
        "headers": [],
        "query_string": b"steps=2&count=40&scale=1&format=sse",
    }
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def scenario() -> None:
        async with serve() as (app, _):
            await app(scope, asyncio.Event().wait, send)  # type: ignore[arg-type] # nothing is ever received

    asyncio.run(scenario())

    pieces = [message["body"].count(b"event: step") for message in sent if message["type"] == "http.response.body"]
    assert sum(pieces) == 80
    assert max(pieces) == MOST_EVENTS
