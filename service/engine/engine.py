"""The engine: the asyncio side of a worker. Queue limit, deadlines, cancellation, streams, supervision."""

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
"""Number of consecutive workers that may die without computing a batch before the engine stops replacing them."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Steps `begin` (inclusive) to `end` (exclusive) of one row of a request, now present in its outputs."""

    row: int
    begin: int
    end: int


class Reservation:
    """Room in an engine's queue, held while a request is being prepared. Use it on the event loop only.

    As a context manager, it releases unused room on exit. If the block ends by cancellation or `DeadlineExceeded`, it
    reports rows that are not submitted yet or already computed; the engine reports those in between.
    """

    def __init__(self, engine: "Engine", rows: int, deadline: float) -> None:
        self._engine = engine
        self._rows = rows
        self._deadline = deadline
        self._computed_rows = 0
        engine.reserved_rows += rows

    async def submit(self, request: Request) -> None:
        """Submit a request in place of this reservation, and wait until it is computed.

        Raises:
            GlimpseError: as `Engine.submit` does.
        """
        self.release()
        await self._engine.submit(request)
        self._computed_rows = request.rows

    async def stream(self, request: Request) -> AsyncGenerator[list[Progress], None]:
        """Submit a request in place of this reservation, and yield its new steps: one `Progress` per row that has any.

        Close the iterator (`contextlib.aclosing`) to cancel the request.

        Raises:
            GlimpseError: as `Engine.submit` does; `NotReady` and `Overloaded` before anything is yielded.
        """
        assert not request.keeps_last_step, "this is a bug: a stream needs all steps"
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
        """Return the size in bytes of the arrays that hold a request's outputs."""
        per_row, per_step = self._engine.output_sizes(request.wanted)
        return request.rows * (per_row + request.kept_steps * per_step)

    def release(self) -> None:
        """Release the room; does nothing if it was released or used."""
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
    """Serves one graph. Call all methods on the event loop."""

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
        """Prepare an engine; `start` starts its worker.

        Args:
            name: of the graph, for messages, logs and the thread.
            runtime: the graph; used on the worker's thread only.
            initial: state of a new sequence by name; each array has the state's shape without the batch axis.
            policy: limits of the queue, the batch and the segments.
            listener: called on the worker's thread and on the event loop.
            verify: called on the worker's thread when every row of a batch has failed. Any exception that it raises
                marks the runtime as broken.
            stall_seconds: how long one segment, or `verify`, may run before the engine is unhealthy; after twice that,
                it is beyond repair.
            clock: monotonic, in seconds; deadlines refer to it.
        """
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
        """Number of rows reserved for requests that are still being prepared; they count as waiting."""
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
        """Stop the worker after its current segment. Pending and later requests get `NotReady`.

        Args:
            timeout_seconds: how long to wait for the worker's thread to end.
        """
        self._is_stopped = True
        self._worker.stop()
        await asyncio.to_thread(self._worker.join, timeout_seconds)
        self._give_up("has been stopped")

    def reserve(self, rows: int, deadline: float = math.inf) -> Reservation:
        """Reserve room in the queue for a request of `rows` rows before the work of preparing it.

        Args:
            rows: number of sequences.
            deadline: on the engine's clock, in seconds; tells a missed deadline from a cancellation.

        Raises:
            NotReady, Overloaded: as `check_room` does.
        """
        self.check_room(rows)
        return Reservation(self, rows, deadline)

    def check_room(self, rows: int) -> None:
        """Check that the queue has room, so that a request can be refused before its body is read.

        Raises:
            NotReady: the engine has been stopped.
            Overloaded: the queue has no room for `rows` rows.
        """
        if self._is_stopped:
            raise NotReady(f"{self.name} has been stopped")
        try:
            self._worker.check_room(rows, self.reserved_rows)
        except Overloaded:
            self._listener.on_rejected(rows)
            raise

    async def submit(self, request: Request) -> None:
        """Compute a request; return when its outputs are complete.

        Cancelling the call cancels the request; its slots are free before the next segment.

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
            # Break the reference cycle request -> error -> traceback -> this frame -> request, which would keep the
            # arrays alive until a garbage collection.
            request.future = request.error = None

    def output_sizes(self, wanted: frozenset[str] | None) -> tuple[int, int]:
        """Return the size in bytes of the wanted outputs (all when None): per row, and per row and step.

        Cached, because every request needs it, and computing it takes longer than the rest of admission.
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
        """Report abandoned rows to the listener: as late if the deadline has passed, as cancelled otherwise."""
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
        """Return whether only a new process can help: a batch hangs, the runtime is broken, or workers keep dying."""
        return (
            self._worker.broken_because is not None
            or self._worker.busy_seconds() > 2 * self._stall_seconds
            or self._fruitless_workers == MAX_FRUITLESS_WORKERS
        )

    def recover(self) -> bool:
        """Replace a worker that has died; return whether it was replaced. Its pending requests fail with `NotReady`."""
        if not self._worker.has_died or self.is_beyond_repair():
            return False
        self._give_up("lost its worker while this request was pending")
        self._fruitless_workers = 0 if self._worker.has_computed else self._fruitless_workers + 1
        if self.is_beyond_repair():
            return False
        logger.error("%s: starting a new worker", self.name)
        self._worker = self._new_worker()
        self._worker.start()
        self._listener.on_worker_replaced()
        return True

    def _gather(self, rows: int) -> None:
        """Wake the worker once for all requests of the same event-loop iteration, so that they form one batch.

        Wake it at the end of the iteration, because until then it would compete with the loop for the GIL, or as soon
        as the requests fill a quarter of the slots.
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
        request.future.set_exception(DeadlineExceeded("the deadline passed before the result was computed"))

    def _give_up(self, why: str) -> None:
        """Fail all pending requests with `NotReady`: nothing is wrong with them, so their clients may retry."""
        for request in self._worker.clear():
            request.error = NotReady(f"{self.name} {why}")
            self._settle(request)

    def _deliver(self, settled: list[Request], streams: list[Request]) -> None:
        """Pass the worker's results to the event loop; called on the worker's thread."""
        assert self._loop is not None, "this is a bug: the engine was not started"
        with contextlib.suppress(RuntimeError):  # raised if the loop has closed; then nothing waits for the results
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
