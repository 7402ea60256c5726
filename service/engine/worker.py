"""The worker: the thread that owns a runtime, and alternates between scheduling and computing.

Whenever the runtime is free, it takes waiting requests without going through the event loop. Once per segment, it tells
the loop which requests have finished or failed, and which streams have new steps. It does so just before it computes
the next segment, or when there is none: while the runtime computes, the loop has the GIL to itself; at any other time,
the two threads would compete for it.
"""

import logging
import threading
import time
from collections.abc import Callable

from service.engine.batcher import Batch, Batcher
from service.engine.report import BatchReport, Listener
from service.engine.request import Request
from service.engine.slots import Slots
from service.errors import InferenceFailed

logger = logging.getLogger("glimpse.engine")

Deliver = Callable[[list[Request], list[Request]], None]
"""Callback on the worker's thread; takes the settled requests and the streams with new steps."""


Verify = Callable[[], None]
"""Check on the worker's thread that the runtime reproduces the golden example; raises an exception if it does not."""


class Worker:
    """One thread, one runtime, one batcher."""

    def __init__(
        self,
        name: str,
        batcher: Batcher,
        make_slots: Callable[[], Slots],
        deliver: Deliver,
        listener: Listener,
        verify: Verify,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare a worker; `start` starts its thread.

        Args:
            name: of the thread, for logs.
            batcher: guarded by the worker's lock from now on.
            make_slots: called once, on the thread.
            deliver: called on the thread.
            listener: called on the thread, and on those that call `wake` and `discard`.
            verify: called on the thread when every row of a batch has failed.
            clock: monotonic, in seconds.
        """
        self._batcher = batcher
        self._make_slots = make_slots
        self._deliver = deliver
        self._listener = listener
        self._verify = verify
        self._clock = clock
        self.broken_because: str | None = None
        """Error that shows that the runtime is broken, or None."""
        self.has_computed = False
        """Whether any batch has been computed, even if its rows failed."""
        self._wake = threading.Condition()
        self._is_stopping = False
        self._busy_since: float | None = None
        self._settled: list[Request] = []
        self._streams: list[Request] = []
        self._computed: BatchReport | None = None
        """Report of the last batch, until the listener gets it."""
        self._thread = threading.Thread(target=self._run, name=f"glimpse-{name}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end after the current segment; does not wait."""
        with self._wake:
            self._is_stopping = True
            self._wake.notify()

    def join(self, timeout_seconds: float) -> bool:
        """Wait for the thread to end; return whether it has ended or was never started."""
        if self._was_started:
            self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def add(self, request: Request) -> None:
        """Queue a request, from any thread. It is taken on `wake`, or after the current segment.

        Raises:
            Overloaded: the queue is full.
        """
        with self._wake:
            self._batcher.add(request, self._clock())

    def wake(self) -> None:
        """Wake the thread, if it is idle, to take queued requests; from any thread."""
        with self._wake:
            self._listener.on_queue(self._batcher.queued_rows)
            self._wake.notify()

    def check_room(self, rows: int, reserved_rows: int) -> None:
        """Check that the queue has room for `rows` more rows; from any thread, without taking the lock.

        Raises:
            Overloaded: the queue is full.
        """
        self._batcher.check_room(rows, reserved_rows)

    def discard(self, request: Request) -> bool:
        """Drop a request, from any thread; return False if it was settled already."""
        with self._wake:
            if request.is_settled:
                return False
            self._batcher.discard(request)
            self._listener.on_queue(self._batcher.queued_rows)
            return True

    def clear(self) -> list[Request]:
        """Drop all requests, from any thread; return those that were unsettled."""
        with self._wake:
            return self._batcher.clear()

    @property
    def is_alive(self) -> bool:
        """Whether the thread is running."""
        return self._thread.is_alive()

    @property
    def has_died(self) -> bool:
        """Whether the thread has ended without being asked to."""
        return self._was_started and not self._thread.is_alive() and not self._is_stopping

    @property
    def _was_started(self) -> bool:
        return self._thread.ident is not None

    def busy_seconds(self) -> float:
        """Return how long the current segment, or the golden example, has been running; 0 when idle."""
        since = self._busy_since
        return 0.0 if since is None else self._clock() - since

    def _run(self) -> None:
        try:
            slots = self._make_slots()
            while (batch := self._next_batch()) is not None:
                self._compute(slots, batch)
                del batch  # or an idle worker would keep the requests' arrays alive
        except Exception:
            # The engine notices that the thread is gone, fails its requests and starts another.
            logger.exception("%s died", self._thread.name)
        finally:
            self._deliver_pending()

    def _next_batch(self) -> Batch | None:
        with self._wake:
            while not self._is_stopping:
                now = self._clock()
                batch = self._batcher.next_batch(now)
                if batch is None:
                    self._deliver_pending()  # before the metrics, because clients are waiting
                self._report_metrics()
                if batch is not None:
                    self._busy_since = now
                    return batch
                wake_at = self._batcher.wake_at(now)
                self._wake.wait(None if wake_at is None else max(wake_at - now, 0.0))
            self._report_metrics()
        return None

    def _compute(self, slots: Slots, batch: Batch) -> None:
        slots.load(batch)
        self._deliver_pending()
        failures = slots.compute(batch)
        with self._wake:
            failed = self._fail(batch, failures)
            now = self._clock()
            finished = self._batcher.advance(batch, now)
            started, self._busy_since = self._busy_since, None
        assert started is not None, "this is a bug: a segment ended that had not begun"
        self.has_computed = True
        self._settled += [*failed, *finished]
        self._streams += dict.fromkeys(batch.running[slot].request for slot in batch.streams)
        for cause in failed.values():
            logger.error("a request failed when run alone: %s", cause, exc_info=cause)
        if len(failures) == len(batch.running):
            self._verify_runtime()
        self._computed = BatchReport(
            rows=len(batch.running),
            steps=batch.steps,
            padding_row_steps=batch.padding_row_steps,
            reason=batch.reason,
            compute_seconds=now - started,
            failed_rows=len(failures),
        )

    def _deliver_pending(self) -> None:
        """Pass settled requests and streams with new steps to the engine."""
        if self._settled or self._streams:
            settled, self._settled = self._settled, []
            streams, self._streams = self._streams, []
            self._deliver(settled, streams)

    def _report_metrics(self) -> None:
        """Report the last batch, the queue and the slots to the listener."""
        computed, self._computed = self._computed, None
        if computed is not None:
            self._listener.on_batch(computed)
        self._listener.on_queue(self._batcher.queued_rows)
        self._listener.on_slots(self._batcher.running_rows)

    def _fail(self, batch: Batch, failures: dict[int, Exception]) -> dict[Request, Exception]:
        """Drop the requests with failed rows; return them with the cause."""
        failed = {}
        for slot, cause in failures.items():
            request = batch.running[slot].request
            if not request.is_settled:
                self._batcher.discard(request)
                request.error = InferenceFailed("the model failed on this input, even when run alone")
                request.error.__cause__ = cause
                failed[request] = cause
        return failed

    def _verify_runtime(self) -> None:
        """When every row failed, run the golden example to tell a broken runtime from bad inputs.

        Timed like a segment, because it may hang.
        """
        self._deliver_pending()
        self._busy_since = self._clock()
        try:
            self._verify()
        except Exception as error:
            self.broken_because = str(error)
            logger.exception("%s: the runtime no longer reproduces its golden example", self._thread.name)
        self._busy_since = None
