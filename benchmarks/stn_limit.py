"""Upper limit of the STN's throughput: the same graph and codecs without HTTP, in one process per core."""

import contextlib
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from multiprocessing.synchronize import Barrier
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks import workloads
from benchmarks.served import BATCH, loaded
from benchmarks.turns import repeat
from service.media.decoding import decode
from service.media.encoding import encode
from service.runtime.base import allocate_outputs, shape_of
from service.tasks import stn

START_SECONDS = 120.0
"""Longest time until all processes are ready."""


@dataclass(frozen=True, slots=True)
class StnLimit:
    """Throughput without HTTP, and the time of each stage."""

    rate: float
    """Pictures per second, of all processes together."""
    processes: int
    decode_seconds: float
    """Mean time to decode and frame a picture."""
    model_seconds: float
    """Mean time of the model per picture, in a full batch."""
    encode_seconds: float
    """Mean time to encode a rectified picture."""

    @classmethod
    def mean(cls, parts: "Sequence[StnLimit]") -> "StnLimit":
        """Return the mean of several measurements of equal duration."""
        figures = np.mean([(p.rate, p.decode_seconds, p.model_seconds, p.encode_seconds) for p in parts], axis=0)
        rate, *stages = figures.tolist()
        return cls(rate, parts[0].processes, *stages)


@contextlib.contextmanager
def stn_processes(repository: Path, processes: int) -> Iterator[Callable[[float], StnLimit]]:
    """Start processes that decode, run the model in batches and encode; yield what measures them for given seconds."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(processes)

    def measure(seconds: float) -> StnLimit:
        found = pool.starmap(_rectify, [(repository, seconds)] * processes, chunksize=1)
        rates = np.array([rate for rate, _ in found])
        stages = np.mean([stages for _, stages in found], axis=0)
        return StnLimit(float(rates.sum()), processes, *stages.tolist())

    with context.Pool(processes, _set_barrier, (barrier,)) as pool:
        yield measure


_barrier: Barrier


def _set_barrier(barrier: Barrier) -> None:
    global _barrier  # noqa: PLW0603 - a pool's processes can inherit a barrier, but not be sent one
    _barrier = barrier


def _rectify(repository: Path, seconds: float) -> tuple[float, list[float]]:
    """Return pictures per second, and the seconds per picture in each stage."""
    batch, stages = _batch(repository)
    batch()
    stages[:] = 0
    _barrier.wait(START_SECONDS)
    batches, took = repeat(batch, seconds)
    return batches * BATCH / took, (stages / (batches * BATCH)).tolist()


@cache
def _batch(repository: Path) -> tuple[Callable[[], None], NDArray[np.float64]]:
    """Return a function that processes one batch, and the array to which it adds the seconds spent in each stage."""
    cv2.setNumThreads(1)
    model = loaded(repository, "stn-affine", threads=1)  # one process per core
    runtime = model.graphs["rectify"].runtime
    files = [call.body for call in workloads.stn(BATCH)]
    inputs = np.empty(shape_of(runtime.signature.inputs[0], BATCH, 1), np.uint8)
    outputs = allocate_outputs(runtime.signature, BATCH, 1)
    bound = runtime.bind({"picture": inputs}, outputs)
    stages = np.zeros(3)

    def batch() -> None:
        times = [time.perf_counter()]
        for row, file in enumerate(files):
            inputs[row] = stn.network_input(decode(file, "image/png"), model.manifest)
        times.append(time.perf_counter())
        bound()
        times.append(time.perf_counter())
        for picture in outputs["rectified"]:
            encode(picture)
        times.append(time.perf_counter())
        stages[:] += np.diff(times)

    return batch, stages
