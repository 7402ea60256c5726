"""Threads for slow work, and what happens to work that is abandoned."""

import asyncio
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event

import pytest

from service.api.threads import ThreadPool, raise_if_abandoned
from service.errors import Cancelled
from tests.service.fakes import PATIENCE_SECONDS


class Body:
    """Stands for many bytes."""


@contextmanager
def one_thread() -> Iterator[ThreadPool]:
    threads = ThreadPool(1, "test")
    try:
        yield threads
    finally:
        threads.close()


def test_work_that_is_given_up_while_it_waits_holds_nothing() -> None:
    """Its body is freed at once, even while the threads are busy with other work."""

    async def scenario(threads: ThreadPool, free: Event) -> None:
        busy = asyncio.create_task(threads.run(free.wait))
        body = Body()
        kept = weakref.ref(body)
        waiting = asyncio.create_task(threads.run(id, body))
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
    with one_thread() as threads:
        try:
            asyncio.run(scenario(threads, free))
        finally:
            free.set()


def test_work_that_is_given_up_under_way_can_know() -> None:
    """Work that checks now and then ends soon; the next work on its thread is not affected."""
    is_over = Event()

    async def scenario(threads: ThreadPool) -> None:
        loop, began, ended = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()

        def long() -> None:
            loop.call_soon_threadsafe(began.set)
            try:
                while not is_over.is_set():
                    raise_if_abandoned()
            except Cancelled:
                loop.call_soon_threadsafe(ended.set)
                raise

        working = asyncio.create_task(threads.run(long))
        await began.wait()
        working.cancel()
        await ended.wait()

        await threads.run(raise_if_abandoned)

    with one_thread() as threads:
        try:
            asyncio.run(asyncio.wait_for(scenario(threads), PATIENCE_SECONDS))
        finally:
            is_over.set()


def test_error_of_the_work_is_the_callers() -> None:
    """The caller gets whatever the work raises."""

    async def scenario() -> None:
        with one_thread() as threads, pytest.raises(ZeroDivisionError):
            await threads.run(divmod, 1, 0)

    asyncio.run(scenario())
