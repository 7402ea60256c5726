"""A training run from its command-line options: seed, device, starting weights and output folder."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from models.checkpoint import adopt_weights, load, mean_weights, weights_file
from models.training import Experiment, Schedule, TrainingError, train


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """Options of a training run, the same for every model."""

    updates: int | None
    """Total number of updates; None means the schedule's. 0 evaluates the starting weights and keeps them unchanged."""
    learning_rate: float | None
    """Adam's step size after the warm-up; None means the schedule's."""
    cooldown: float | None
    """Share of the updates, at the end, over which the learning rate falls to zero; None means the schedule's."""
    seed: int
    """Seed of the initial weights, the data and the noise."""
    runs: Path
    """Folder of all runs; this one gets a subfolder named after its experiment."""
    device: str
    """PyTorch device: `cpu` or `cuda`."""
    threads: int
    """Number of PyTorch's CPU threads."""
    precision: str
    """Precision of the forward pass: `float32`, or `bfloat16` by autocast."""
    start: Sequence[Path]
    """Runs, checkpoints or model folders whose mean weights the network starts from, wherever a tensor fits; random
    weights when empty."""


def run(
    make: Callable[[torch.device], Experiment], schedule: Schedule, options: RunOptions
) -> tuple[Path, Mapping[str, float]]:
    """Train the experiment that `make` builds for a device.

    Returns:
        The run's folder and the metrics of its best evaluation.

    Raises:
        CheckpointError: starting weights are missing, cannot be averaged, or none of their tensors fits the network.
        TrainingError: the device is not available, 0 updates are asked for without starting weights, or as for `train`.
        TrainingStoppedError: as for `train`.
    """
    if options.device == "cuda" and not torch.cuda.is_available():
        raise TrainingError("PyTorch finds no usable GPU; train with the device 'cpu'")
    if options.updates == 0 and not options.start:
        raise TrainingError("0 updates only keep the starting weights, and there are none; give a start")
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    torch.manual_seed(options.seed)
    places = " + ".join(map(str, options.start))
    weights = mean_weights([load(weights_file(path)) for path in options.start], places) if options.start else None
    experiment = make(torch.device(options.device))
    if weights is not None:
        fresh = adopt_weights(experiment.network, weights, places)
        fits = f"{len(fresh)} tensors do not come from {places}" if fresh else f"every tensor comes from {places}"
        tqdm.write("\n  ".join([fits, *fresh]))
    asked = {"updates": options.updates, "learning_rate": options.learning_rate, "cooldown": options.cooldown}
    chosen: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    schedule = replace(schedule, **chosen, bfloat16=options.precision == "bfloat16")
    folder = options.runs / str(experiment.description["name"])
    return folder, train(experiment, schedule, folder, seed=options.seed, start=[*map(str, options.start)])
