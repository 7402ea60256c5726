"""The engine: the asyncio side of a worker. The queue's limit, deadlines, cancellation, streams, supervision."""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from export.manifest import Array
from service.engine.batcher import Batcher, BatchingPolicy
from service.engine.report import Listener
from service.engine.request import Request
from service.engine.slots import Slots
from service.engine.worker import Verify, Worker
from service.errors import DeadlineExceeded, NotReady, Overloaded
from service.runtime.base import Runtime, shape_of

logger = logging.getLogger("glimpse.engine")

MAX_FRUITLESS_WORKERS = 3
"""Workers in a row that may die before they have computed a batch; one more new thread would not help either."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Steps `begin` up to, not including, `end` of a request's row are in its outputs."""

    row: int
    begin: int
    end: int


class Reservation:
    """Room in an engine's queue, kept while a request is being prepared. Belongs to the event loop.

    As a context manager, it is given back at its end if it was not used. It reports rows that are cancelled or late
    before they are submitted or after they were computed; in between, the engine does.
    """

    def __init__(self, engine: "Engine", rows: int, deadline: float) -> None:
        self._engine = engine
        self._rows = rows
        self._deadline = deadline
        self._computed_rows = 0
        engine.reserved_rows += rows

    async def submit(self, request: Request) -> None:
        """Have a request computed in this room.

        Raises:
            GlimpseError: as `Engine.submit` does.
        """
        self.release()
        await self._engine.submit(request)
        self._computed_rows = request.rows

    async def stream(self, request: Request) -> AsyncGenerator[list[Progress], None]:
        """Have a request computed in this room, and yield what is new of its steps: a `Progress` for each row.

        Close the iterator (`contextlib.aclosing`) to give the request up.

        Raises:
            GlimpseError: as `Engine.submit` does; `NotReady` and `Overloaded` before anything is yielded.
        """
        grown = asyncio.Event()
        request.on_progress = grown.set
        submission = asyncio.ensure_future(self.submit(request))
        submission.add_done_callback(lambda _: grown.set())
        yielded = [0] * request.rows
        try:
            while True:
                await grown.wait()
                grown.clear()
                is_over = submission.done()
                ready = request.steps_done.copy()
                news = [Progress(row, yielded[row], end) for row, end in enumerate(ready) if yielded[row] < end]
                yielded = ready
                if news:
                    yield news
                if is_over:
                    await submission
                    return
        finally:
            submission.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await submission

    def output_bytes(self, request: Request) -> int:
        """Return how much memory the outputs of a request take in this engine."""
        per_row, per_step = self._engine.output_sizes(request.wanted)
        return request.rows * (per_row + request.steps * per_step)

    def release(self) -> None:
        """Give the room back."""
        self._engine.reserved_rows -= self._rows
        self._rows = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        rows = self._rows + self._computed_rows
        if rows and kind is not None and issubclass(kind, (asyncio.CancelledError, DeadlineExceeded)):
            self._engine.report_given_up(rows, self._deadline)
        self.release()


class Engine:
    """One graph, ready to answer. All methods belong to the event loop."""

    def __init__(
        self,
        name: str,
        runtime: Runtime,
        initial: Mapping[str, Array],
        policy: BatchingPolicy,
        listener: Listener,
        *,
        verify: Verify = lambda: None,
        stall_seconds: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.runtime = runtime
        self.policy = policy
        self._initial = initial
        self._listener = listener
        self._verify = verify
        self._stall_seconds = stall_seconds
        self._clock = clock
        self._is_stopped = False
        self.reserved_rows = 0
        """Rows of requests that are still being prepared: they count as if they were waiting."""
        self._output_sizes: dict[frozenset[str] | None, tuple[int, int]] = {}
        self._gathered_rows = 0
        self._fruitless_workers = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._worker = self._new_worker()

    def _new_worker(self) -> Worker:
        def make_slots() -> Slots:
            policy = self.policy
            return Slots(self.runtime, self._initial, slots=policy.slots, longest_segment=policy.longest_segment)

        batcher = Batcher(self.policy)
        return Worker(self.name, batcher, make_slots, self._deliver, self._listener, self._verify, self._clock)

    def start(self) -> None:
        """Start the worker."""
        self._loop = asyncio.get_running_loop()
        self._worker.start()

    async def stop(self, timeout_seconds: float = 5.0) -> None:
        """End the worker. Requests that still wait, or come later, get `NotReady`."""
        self._is_stopped = True
        self._worker.stop()
        await asyncio.to_thread(self._worker.join, timeout_seconds)
        self._give_up("has been stopped")

    def reserve(self, rows: int, deadline: float = math.inf) -> Reservation:
        """Keep room in the queue for a request with this deadline, before anything is spent on it.

        Raises:
            NotReady, Overloaded: as `check_room` does.
        """
        self.check_room(rows)
        return Reservation(self, rows, deadline)

    def check_room(self, rows: int) -> None:
        """Refuse a request at once, before its body is read, if the queue has no room for it.

        Raises:
            NotReady: the engine has been stopped.
            Overloaded: the queue has no room for so many rows.
        """
        if self._is_stopped:
            raise NotReady(f"{self.name} has been stopped")
        try:
            self._worker.check_room(rows, self.reserved_rows)
        except Overloaded:
            self._listener.on_rejected(rows)
            raise

    async def submit(self, request: Request) -> None:
        """Have a request computed; its outputs are filled when this returns.

        Cancelling the caller gives the request up; its slots are free before the next segment.

        Raises:
            NotReady: the engine has been stopped, or its worker has died.
            Overloaded: the queue is full.
            DeadlineExceeded: the deadline passed before the end.
            InferenceFailed: the runtime failed on this request.
        """
        self.check_room(request.rows)
        assert self._loop is not None, "this is a bug: the engine was not started"
        request.allocate(self.runtime.signature)
        request.future = self._loop.create_future()
        timer = self._loop.call_later(request.deadline - self._clock(), self._expire, request)
        try:
            self._worker.add(request)
            self._gather(request.rows)
            await request.future
        except asyncio.CancelledError:
            self._worker.discard(request)
            if request.future.cancelled():
                self.report_given_up(request.rows, request.deadline)
            raise
        finally:
            timer.cancel()
            # An error's traceback leads here: with a way back to it, all of this would stay until a garbage collection.
            request.future = request.error = None

    def output_sizes(self, wanted: frozenset[str] | None) -> tuple[int, int]:
        """Return how many bytes of the wanted outputs (all when None) a row takes, and a step of it.

        Remembered, because it is asked for with every request and takes longer than all the rest of its admission.
        """
        sizes = self._output_sizes.get(wanted)
        if sizes is None:
            per_row = per_step = 0
            for spec in self.runtime.signature.outputs:
                size = math.prod(shape_of(spec, 1, 1)) * np.dtype(spec.dtype).itemsize
                if wanted is None or spec.name in wanted:
                    per_row += size * (not spec.is_per_step)
                    per_step += size * spec.is_per_step
            sizes = self._output_sizes[wanted] = per_row, per_step
        return sizes

    def report_given_up(self, rows: int, deadline: float) -> None:
        """Report rows that nobody waits for any more: their deadline has passed, or their client has left."""
        is_late = self._clock() >= deadline
        (self._listener.on_deadline_missed if is_late else self._listener.on_cancelled)(rows)

    def unhealthy_because(self) -> str | None:
        """Return why this engine cannot compute, or None."""
        if not self._worker.is_alive:
            return f"{self.name}: the worker thread has died"
        if (busy := self._worker.busy_seconds()) > self._stall_seconds:
            return f"{self.name}: a batch has been running for {busy:.1f} s, longer than {self._stall_seconds:g} s"
        if self._worker.broken_because is not None:
            return f"{self.name}: the runtime is broken: {self._worker.broken_because}"
        return None

    def is_beyond_repair(self) -> bool:
        """Whether only another process can help: a batch hangs, the runtime is broken, or every worker dies at once."""
        return (
            self._worker.broken_because is not None
            or self._worker.busy_seconds() > 2 * self._stall_seconds
            or self._fruitless_workers == MAX_FRUITLESS_WORKERS
        )

    def recover(self) -> bool:
        """Replace a worker that has died, and return whether it was replaced. Its clients are told to try again."""
        if not self._worker.has_died or self.is_beyond_repair():
            return False
        self._give_up("lost its worker while this request was in it")
        self._fruitless_workers = 0 if self._worker.has_computed else self._fruitless_workers + 1
        if self.is_beyond_repair():
            return False
        logger.error("%s: starting a new worker", self.name)
        self._worker = self._new_worker()
        self._worker.start()
        self._listener.on_worker_replaced()
        return True

    def _gather(self, rows: int) -> None:
        """Compute requests of the same turn of the event loop together, up to a worthwhile batch.

        An idle worker begins at the end of the turn; before that, it would have to share the interpreter.
        """
        assert self._loop is not None, "this is a bug: the engine was not started"
        is_first = not self._gathered_rows
        self._gathered_rows += rows
        if self._gathered_rows >= self.policy.slots // 4:
            self._wake_worker()
        elif is_first:
            self._loop.call_soon(self._wake_worker)

    def _wake_worker(self) -> None:
        self._gathered_rows = 0
        self._worker.wake()

    def _expire(self, request: Request) -> None:
        if request.future is None or request.future.done():
            return
        self._worker.discard(request)
        self._listener.on_deadline_missed(request.rows)
        request.future.set_exception(DeadlineExceeded("the deadline passed before the answer was computed"))

    def _give_up(self, why: str) -> None:
        """Fail all requests that wait or run with `NotReady`; nothing is wrong with them."""
        for request in self._worker.clear():
            request.error = NotReady(f"{self.name} {why}")
            self._settle(request)

    def _deliver(self, settled: list[Request], streams: list[Request]) -> None:
        """Called by the worker, on its thread."""
        assert self._loop is not None, "this is a bug: the engine was not started"
        with contextlib.suppress(RuntimeError):  # the loop has closed: nobody is left to be told
            self._loop.call_soon_threadsafe(self._on_delivery, settled, streams)

    def _on_delivery(self, settled: list[Request], streams: list[Request]) -> None:
        for request in streams:
            if request.on_progress is not None:
                request.on_progress()
        for request in settled:
            self._settle(request)

    def _settle(self, request: Request) -> None:
        future = request.future
        if future is None or future.done():
            return
        if request.error is None:
            future.set_result(None)
        else:
            future.set_exception(request.error)
