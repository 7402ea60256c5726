"""The context: slow work goes to threads, and what is given up goes nowhere."""

import asyncio
import weakref
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any, cast

import pytest

from service.api.context import Context, go_on_if_wanted
from service.errors import Cancelled
from tests.service.fakes import PATIENCE_SECONDS


class Body:
    """Stands for many bytes."""


def context(threads: ThreadPoolExecutor) -> Context:
    unused = cast("Any", None)
    return Context(unused, unused, unused, codecs=threads, header_reader=threads)


def test_work_that_is_given_up_while_it_waits_holds_nothing() -> None:
    """Its body is freed at once, however long the threads are busy with others."""

    async def scenario(threads: ThreadPoolExecutor, free: Event) -> None:
        busy = asyncio.create_task(context(threads).off_loop(free.wait))
        body = Body()
        kept = weakref.ref(body)
        waiting = asyncio.create_task(context(threads).off_loop(id, body))
        del body
        await asyncio.sleep(0)

        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        del waiting

        assert kept() is None
        free.set()
        assert await busy

    free = Event()
    with ThreadPoolExecutor(1) as threads:
        try:
            asyncio.run(scenario(threads, free))
        finally:
            free.set()


def test_work_that_is_given_up_under_way_can_know() -> None:
    """What asks now and then ends soon; the next work on its thread is wanted again."""
    is_over = Event()

    async def scenario(threads: ThreadPoolExecutor) -> None:
        loop, began, ended = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()

        def long() -> None:
            loop.call_soon_threadsafe(began.set)
            try:
                while not is_over.is_set():
                    go_on_if_wanted()
            except Cancelled:
                loop.call_soon_threadsafe(ended.set)
                raise

        working = asyncio.create_task(context(threads).off_loop(long))
        await began.wait()
        working.cancel()
        await ended.wait()

        await context(threads).off_loop(go_on_if_wanted)

    with ThreadPoolExecutor(1) as threads:
        try:
            asyncio.run(asyncio.wait_for(scenario(threads), PATIENCE_SECONDS))
        finally:
            is_over.set()


def test_error_of_the_work_is_the_callers() -> None:
    """Whatever it raises."""

    async def scenario() -> None:
        with ThreadPoolExecutor(1) as threads, pytest.raises(ZeroDivisionError):
            await context(threads).off_loop(divmod, 1, 0)

    asyncio.run(scenario())
