"""An engine on a runtime that blocks until a test releases it, in an event loop whose time the test advances."""

import asyncio
import functools
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import numpy as np

from service.engine.batcher import BatchingPolicy
from service.engine.engine import Engine, Progress
from service.engine.request import Request
from service.errors import InferenceFailed
from tests.service.fakes import (
    INITIAL,
    PATIENCE_SECONDS,
    Clock,
    FakeRuntime,
    Gate,
    Recorder,
    recurrent_answers,
)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose timers run on a virtual clock."""

    def __init__(self) -> None:
        self.clock = Clock()
        super().__init__()

    def time(self) -> float:
        """Return the virtual time."""
        return self.clock()


def in_virtual_time(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Run an asynchronous test in virtual time; a hanging test is cancelled, and fails even if it swallows that."""

    @functools.wraps(test)
    def run() -> None:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            loop = runner.get_loop()

            async def watched() -> None:
                task = asyncio.current_task()
                assert task is not None
                has_hung = threading.Event()

                def bark() -> None:
                    has_hung.set()
                    loop.call_soon_threadsafe(task.cancel)

                watchdog = threading.Timer(PATIENCE_SECONDS, bark)
                watchdog.start()
                try:
                    await test()
                finally:
                    watchdog.cancel()
                    assert not has_hung.is_set(), "the test hung"

            runner.run(watched())

    return run


async def let_time_pass(seconds: float) -> None:
    """Advance the virtual time, and run the timers that are due."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop.clock.advance(seconds)
    passed = asyncio.Event()
    loop.call_later(0, passed.set)
    await passed.wait()
    await asyncio.sleep(0)


class Bench:
    """An engine on a held runtime."""

    def __init__(self, *, slots: int = 4, segment: int = 2, queue_rows: int = 16, stall_seconds: float = 5.0) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        self.clock = loop.clock
        self.gate = Gate()
        self.runtime = FakeRuntime(gate=self.gate)
        self.listener = Recorder()
        self.is_broken = False
        """Whether the runtime also fails on its golden example."""
        self.is_examined, self.examination = threading.Event(), threading.Event()
        """Events: the golden example has begun; it may end."""
        self.examination.set()
        policy = BatchingPolicy(slots=slots, queue_rows=queue_rows, longest_segment=segment, stream_segment=segment)
        self.engine = Engine(
            "fake",
            self.runtime,
            INITIAL,
            policy,
            self.listener,
            verify=self._verify,
            stall_seconds=stall_seconds,
            clock=self.clock,
        )

    def _verify(self) -> None:
        self.is_examined.set()
        self.examination.wait(PATIENCE_SECONDS)
        if self.is_broken:
            raise InferenceFailed("the answer is not the golden one")

    async def submitted(self, request: Request) -> asyncio.Task[None]:
        """Submit a request, and return the task once the request is queued."""
        task = asyncio.create_task(self.engine.submit(request))
        await asyncio.sleep(0)
        return task

    def stream(self, request: Request) -> AsyncGenerator[list[Progress], None]:
        """Return the stream of a request's new steps."""
        return self.engine.reserve(request.rows, request.deadline).stream(request)

    async def read(self, stream: AsyncGenerator[list[Progress], None]) -> asyncio.Task[list[Progress]]:
        """Return a task that reads once from a stream, once the stream's request is queued."""

        async def read_once() -> list[Progress]:
            return await anext(stream)

        task = asyncio.create_task(read_once())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return task

    async def in_hand(self) -> None:
        """Wait until the runtime is called once more, and block it there."""
        await asyncio.to_thread(self.gate.await_arrival)

    async def next_segment(self) -> None:
        """Release the current segment, and wait for the next."""
        self.gate.let_through()
        await self.in_hand()

    async def idle(self) -> None:
        """Wait until the worker is idle and has reported it."""
        assert await asyncio.to_thread(self.listener.has_no_slots.wait, PATIENCE_SECONDS)

    async def let_time_pass(self, seconds: float) -> None:
        """Advance the virtual time, and run the timers that are due."""
        await let_time_pass(seconds)

    async def death(self) -> None:
        """Make the worker die of a bug, and wait until it has died."""
        self.listener.raises_on_slots = True
        self.gate.open()
        assert await asyncio.to_thread(self.engine._worker.join, PATIENCE_SECONDS)
        self.listener.raises_on_slots = False


@asynccontextmanager
async def serving(
    *, slots: int = 4, segment: int = 2, queue_rows: int = 16, stall_seconds: float = 5.0
) -> AsyncIterator[Bench]:
    bench = Bench(slots=slots, segment=segment, queue_rows=queue_rows, stall_seconds=stall_seconds)
    bench.engine.start()
    try:
        yield bench
    finally:
        bench.gate.open()
        await bench.engine.stop(PATIENCE_SECONDS)


def assert_right(request: Request) -> None:
    np.testing.assert_array_equal(request.outputs["answers"], recurrent_answers(request))
