"""The engine's events, and the listener interface that keeps the engine independent of metrics."""

from dataclasses import dataclass
from typing import Protocol

from service.engine.batcher import CloseReason


@dataclass(frozen=True, slots=True)
class BatchReport:
    """One computed segment."""

    rows: int
    """Number of sequences in the batch."""
    steps: int
    """Length of the segment."""
    padding_row_steps: int
    """Number of steps, summed over the rows, computed beyond the end of their sequences."""
    reason: CloseReason
    compute_seconds: float
    """Time from forming the batch to its last output."""
    failed_rows: int
    """Number of sequences that failed, even when run alone."""


class Listener(Protocol):
    """Receives an engine's events, on the thread where they happen. Methods must be quick and must not raise.

    `on_batch`, `on_queue` and `on_slots` are called under the worker's lock. A new request is reported by the end of
    the event-loop iteration that queued it.
    """

    def on_batch(self, report: BatchReport) -> None:
        """Record a computed segment."""
        ...

    def on_queue(self, rows: int) -> None:
        """Record the current number of waiting sequences."""
        ...

    def on_slots(self, rows: int) -> None:
        """Record the current number of occupied slots."""
        ...

    def on_rejected(self, rows: int) -> None:
        """Record a request of `rows` sequences that was refused because the queue was full."""
        ...

    def on_cancelled(self, rows: int) -> None:
        """Record `rows` sequences dropped because their client left."""
        ...

    def on_deadline_missed(self, rows: int) -> None:
        """Record `rows` sequences dropped because their deadline passed."""
        ...

    def on_worker_replaced(self) -> None:
        """Record that a worker died and was replaced."""
        ...
