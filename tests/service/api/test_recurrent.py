"""Responses of recurrent models, as they are sent."""

import asyncio
import json
import re
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import httpx
from starlette.types import Message, Scope

from service.api.recurrent import MAX_EVENTS
from service.app import Glimpse

Serve = Callable[..., AbstractAsyncContextManager[tuple[Glimpse, httpx.AsyncClient]]]


def test_stream_of_many_samples_is_sent_in_pieces(serve: Serve) -> None:
    """The first is sent before all are encoded; every step is sent for all samples before the next step."""
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

    bodies = [message["body"] for message in sent if message["type"] == "http.response.body"]
    pieces = [body.count(b"event: step") for body in bodies]
    assert sum(pieces) == 80
    assert max(pieces) == MAX_EVENTS
    steps = [json.loads(data)["step"] for data in re.findall(rb"event: step\ndata: (.*)\n", b"".join(bodies))]
    assert steps == [0] * 40 + [1] * 40
