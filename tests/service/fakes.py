"""Fakes: graphs whose every number is known, a runtime that can be held and made to fail, a listener that remembers.

The recurrent graph is `memory' = (3 memory + told + shown) mod 9973`, and outputs its memory at every step; the
stateless one outputs the sum of a picture's pixels. All numbers are integers, so that outputs are either right or
wrong.
"""

import threading
from collections.abc import Mapping

import numpy as np

from export.manifest import Array, Signature, TensorSpec
from service.engine.report import BatchReport
from service.engine.request import Request
from service.runtime.base import Bound

PATIENCE_SECONDS = 20.0
"""Seconds after which a test that waits for a thread fails."""
MODULUS = 9973
POISON = -1
"""Number among the inputs that makes the runtime fail."""
GARBAGE = -(10**6)
"""Number that a failing runtime leaves in its outputs."""

RECURRENT = Signature(
    inputs=(
        TensorSpec(name="told", dtype="int64", shape=("B", 2)),
        TensorSpec(name="shown", dtype="int64", shape=("T", "B", 2)),
    ),
    outputs=(
        TensorSpec(name="answers", dtype="int64", shape=("T", "B", 2)),
        TensorSpec(name="sums", dtype="int64", shape=("T", "B")),
    ),
    state=(TensorSpec(name="memory", dtype="int64", shape=("B", 2)),),
)
INITIAL: dict[str, Array] = {"memory": np.array([5, 7])}

STATELESS = Signature(
    inputs=(TensorSpec(name="picture", dtype="int64", shape=("B", 3)),),
    outputs=(TensorSpec(name="total", dtype="int64", shape=("B",)),),
)


def recurrent_request(
    steps: int, *, rows: int = 1, seed: int = 0, deadline: float = float("inf"), poisoned_step: int | None = None
) -> Request:
    """Return a request to the recurrent graph; the runtime fails at the poisoned step of its last row."""
    generator = np.random.default_rng(seed)
    shown = generator.integers(0, MODULUS, (steps, rows, 2))
    if poisoned_step is not None:
        shown[poisoned_step, -1, 0] = POISON
    return Request({"told": generator.integers(0, MODULUS, (rows, 2)), "shown": shown}, rows, steps, deadline)


def recurrent_answers(request: Request) -> Array:
    """Return the recurrent graph's outputs for a request: row by row, step by step, number by number."""
    told, shown = request.inputs["told"].tolist(), request.inputs["shown"].tolist()
    answers = []
    memory = [INITIAL["memory"].tolist() for _ in range(request.rows)]
    for step in range(request.steps):
        for row in range(request.rows):
            memory[row] = [(3 * memory[row][i] + told[row][i] + shown[step][row][i]) % MODULUS for i in range(2)]
        answers.append([list(numbers) for numbers in memory])
    return np.array(answers)


class Gate:
    """Blocks a runtime before every call until the test releases it."""

    def __init__(self) -> None:
        self._arrivals = threading.Semaphore(0)
        self._passes = threading.Semaphore(0)
        self._is_open = False

    def arrive(self) -> None:
        """Wait to be released. The runtime calls this."""
        self._arrivals.release()
        if not self._is_open and not self._passes.acquire(timeout=PATIENCE_SECONDS):
            raise TimeoutError("nobody let the runtime through")

    def await_arrival(self) -> None:
        """Wait for the next call of the runtime."""
        assert self._arrivals.acquire(timeout=PATIENCE_SECONDS), "the runtime was not called"

    def let_through(self) -> None:
        """Release one call."""
        self._passes.release()

    def open(self) -> None:
        """Release this call and all that follow."""
        self._is_open = True
        self._passes.release()


class FakeRuntime:
    """Computes one of the graphs above. When it fails, it leaves garbage in all of its outputs."""

    provider = "fake"

    def __init__(self, signature: Signature = RECURRENT, gate: Gate | None = None) -> None:
        self.signature = signature
        self.gate = gate
        self.bindings = 0
        self.shapes: list[tuple[int, int]] = []
        """Rows and steps of every call that was released."""

    def bind(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> Bound:
        """See `service.runtime.base.Runtime`."""
        assert set(inputs) == set(self.signature.input_names)
        assert set(outputs) == set(self.signature.output_names)
        assert all(array.flags.c_contiguous for array in (*inputs.values(), *outputs.values()))
        self.bindings += 1
        shape = inputs["shown"].shape if self.signature.is_recurrent else (1, *inputs["picture"].shape)

        def compute() -> None:
            if self.gate is not None:
                self.gate.arrive()
            self.shapes.append((shape[1], shape[0]))
            if any((inputs[spec.name] == POISON).any() for spec in self.signature.inputs):
                for array in outputs.values():
                    array[:] = GARBAGE
                raise RuntimeError("poisoned")
            if not self.signature.is_recurrent:
                outputs["total"][:] = inputs["picture"].sum(axis=-1)
                return
            memory = inputs["memory"]
            for step, shown in enumerate(inputs["shown"]):
                memory = (3 * memory + inputs["told"] + shown) % MODULUS
                outputs["answers"][step] = memory
                outputs["sums"][step] = memory.sum(axis=-1)
            outputs["next_memory"][:] = memory

        return compute


class Recorder:
    """A listener that remembers its calls; it can be made to raise, which kills the worker."""

    def __init__(self) -> None:
        self.batches: list[BatchReport] = []
        self.queue_rows = 0
        self.slots = 0
        self.has_no_slots = threading.Event()
        self.rejected_rows = 0
        self.cancelled_rows = 0
        self.deadline_missed_rows = 0
        self.replaced_workers = 0
        self.raises_on_slots = False

    def on_batch(self, report: BatchReport) -> None:
        """Remember a computed segment."""
        self.batches.append(report)

    def on_queue(self, rows: int) -> None:
        """Remember the length of the queue."""
        self.queue_rows = rows

    def on_slots(self, rows: int) -> None:
        """Remember the number of occupied slots."""
        if self.raises_on_slots and rows:
            raise RuntimeError("a listener that raises")
        self.slots = rows
        if rows:
            self.has_no_slots.clear()
        else:
            self.has_no_slots.set()

    def on_rejected(self, rows: int) -> None:
        """Remember that a full queue refused a request."""
        self.rejected_rows += rows

    def on_cancelled(self, rows: int) -> None:
        """Remember that a client disconnected."""
        self.cancelled_rows += rows

    def on_deadline_missed(self, rows: int) -> None:
        """Remember that a deadline passed."""
        self.deadline_missed_rows += rows

    def on_worker_replaced(self) -> None:
        """Remember that a dead worker was replaced."""
        self.replaced_workers += 1


class Clock:
    """A clock that a test advances."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
