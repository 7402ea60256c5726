"""Disconnects: threads stop working for a client that has left."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import pytest

from service.app import Glimpse
from service.media import decoding
from service.settings import granted_cpus
from service.tasks import draw, stn
from tests.service.fakes import PATIENCE_SECONDS

Serve = Callable[..., AbstractAsyncContextManager[tuple[Glimpse, httpx.AsyncClient]]]

STAGES: dict[str, tuple[str, Callable[..., Any], str]] = {
    "decoding": ("service.api.uploads.decode", decoding.decode, "json"),
    "framing": ("service.tasks.stn.network_input", stn.network_input, "json"),
    "encoding JSON": ("service.tasks.stn.Reading.sampled", stn.Reading.sampled, "json"),
    "encoding arrays": ("service.tasks.stn.Reading.sampled", stn.Reading.sampled, "npz"),
}
"""What is done to every file, where it is called, and the format in which it is."""


class Held:
    """Work that is counted, and blocked the first time it is called."""

    def __init__(self, work: Callable[..., Any]) -> None:
        self._work = work
        self.count = 0
        self.has_begun, self.may_end = threading.Event(), threading.Event()

    def function(self) -> Callable[..., Any]:
        """What does the work; it can take a method's place."""

        def held(*args: Any, **kwargs: Any) -> Any:
            self.count += 1
            self.has_begun.set()
            self.may_end.wait(PATIENCE_SECONDS)
            return self._work(*args, **kwargs)

        return held


async def leave_during(app: Glimpse, asked: asyncio.Task[httpx.Response], work: Held) -> None:
    """Disconnect a client while its work is blocked, and wait until the threads are idle."""
    assert await asyncio.to_thread(work.has_begun.wait, PATIENCE_SECONDS)
    asked.cancel()
    await asyncio.wait([asked])
    work.may_end.set()
    count = max(2, granted_cpus())
    barrier = threading.Barrier(count)  # which no thread passes before all of them have come to it
    await asyncio.gather(*(app._context.codecs.run(barrier.wait, PATIENCE_SECONDS) for _ in range(count)))


@pytest.mark.parametrize("stage", STAGES)
def test_files_that_nobody_waits_for_any_more_are_left(
    serve: Serve, digit_png: bytes, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """If the client disconnects during the first of three files, the others are skipped, at every stage."""
    where, what, answer_format = STAGES[stage]
    work = Held(what)
    monkeypatch.setattr(where, work.function())

    async def scenario() -> None:
        async with serve() as (app, client):
            files = [("image", (f"{index}.png", digit_png, "image/png")) for index in range(3)]
            asked = asyncio.create_task(client.post(f"/stn/rectify?format={answer_format}&size=99", files=files))
            await leave_during(app, asked, work)

    asyncio.run(scenario())

    assert work.count == 1


@pytest.mark.parametrize("answer_format", ["gif", "png", "json"])
def test_drawings_that_nobody_waits_for_any_more_are_left(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, answer_format: str
) -> None:
    """If the client disconnects during the first of many steps or samples, the others are skipped."""
    work = Held(draw.Drawing.enlarged)
    monkeypatch.setattr("service.tasks.draw.Drawing.enlarged", work.function())

    async def scenario() -> None:
        async with serve() as (app, client):
            asked = asyncio.create_task(client.get(f"/draw/generate?steps=8&count=4&seed=1&format={answer_format}"))
            await leave_during(app, asked, work)

    asyncio.run(scenario())

    assert work.count == 1
