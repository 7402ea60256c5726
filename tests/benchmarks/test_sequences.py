"""The engine's baselines compute the same as the engine."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from benchmarks import sequences
from benchmarks.sequences import FixedBatch, Subject, recurrent
from benchmarks.served import BATCH
from benchmarks.workloads import LENGTHS
from export.manifest import Array, Signature, TensorSpec
from service.engine.batcher import BatchingPolicy
from service.engine.request import Request
from service.runtime.base import Bound

SIGNATURE = Signature(
    inputs=(TensorSpec(name="shown", dtype="int64", shape=("T", "B")),),
    outputs=(TensorSpec(name="sums", dtype="int64", shape=("T", "B")),),
    state=(TensorSpec(name="sum", dtype="int64", shape=("B",)),),
)
START = 100


class SummingRuntime:
    """Sums its inputs."""

    provider = "fake"
    signature = SIGNATURE

    def __init__(self) -> None:
        self.segments: list[tuple[int, int]] = []

    def bind(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> Bound:
        """See `service.runtime.base.Runtime`."""

        def compute() -> None:
            self.segments.append(inputs["shown"].shape)
            outputs["sums"][:] = inputs["sum"] + inputs["shown"].cumsum(axis=0)
            outputs["next_sum"][:] = outputs["sums"][-1]

        return compute


def subject(runtime: SummingRuntime) -> Subject:
    generator = np.random.default_rng(0)
    examples = {
        length: [Request({"shown": generator.integers(9, size=(length, 1))}, 1, length, 0.0) for _ in range(BATCH)]
        for length in LENGTHS
    }
    policy = BatchingPolicy(slots=BATCH, queue_rows=1024, shortest_segment=4, longest_segment=16)
    return Subject("sums", runtime, {"sum": np.array(START)}, policy, examples)


@pytest.mark.parametrize("steps", [[8], [64, 64], [16, 40, 8], [1, 33]])
def test_batch_runs_every_sequence_to_its_end(steps: list[int]) -> None:
    """It does so over short segments, and a second run gives the same outputs."""
    runtime = SummingRuntime()
    generator = np.random.default_rng(1)
    requests = [Request({"shown": generator.integers(9, size=(T, 1))}, 1, T, 0.0) for T in steps]
    batch = FixedBatch(subject(runtime), requests)

    for _ in range(2):
        batch.run()

        for row, request in enumerate(requests):
            expected = START + request.inputs["shown"][:, 0].cumsum()
            np.testing.assert_array_equal(batch.outputs["sums"][: request.steps, row], expected)
    assert sum(T for T, _ in runtime.segments) == 2 * max(steps)
    assert all(T <= sequences.SEGMENT and rows == len(steps) for T, rows in runtime.segments)


def test_requests_without_end_are_mixed_evenly_and_never_the_same_object() -> None:
    """Each has the length of its tag."""
    requests = subject(SummingRuntime()).requests()

    taken = [next(requests) for _ in range(400)]
    assert all(request.steps == int(tag) for tag, request in taken)
    assert sorted(tag for tag, _ in taken) == sorted(100 * [str(length) for length in LENGTHS])
    assert len({id(request) for _, request in taken}) == 400


def test_three_ways_are_measured_on_the_same_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    """With whole-request batching all lengths have the same latency; the engine completes every length."""
    monkeypatch.setattr(sequences, "FILL_SECONDS", 0.02)

    found = recurrent(subject(SummingRuntime()), 0.25)

    whole, engine = found.whole_request.by_tag(), found.engine.by_tag()
    assert list(whole) == list(engine) == [str(length) for length in LENGTHS]
    assert len({len(part) for part in whole.values()}) == 1
    assert len({part.percentile(50) for part in whole.values()}) == 1
    assert found.engine_free.rate > 0
    assert set(found.engine.by_status()) == {"200"}
    assert (found.engine.done <= found.engine.seconds).all()


@pytest.mark.parametrize("name", ["draw", "ntm"])
def test_subject_asks_what_the_workload_asks(repository: Path, name: str) -> None:
    """Its sequences have the workload's lengths, or one step less."""
    found = sequences.subject(name, repository)

    for length, requests in found.examples.items():
        assert {request.steps for request in requests} <= {length, length - 1}
        assert set(requests[0].inputs) == {spec.name for spec in found.runtime.signature.inputs}
