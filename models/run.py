"""A training run as a person asks for it: its seed and device, what it begins with, and the folder that it goes to."""

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
    """What can be asked for, whatever is trained."""

    updates: int | None
    """In all; the schedule's own number when None. 0 keeps what it begins with, and evaluates that."""
    learning_rate: float | None
    cooldown: float | None
    """As in the schedule; its own when None."""
    seed: int
    """Seed of the weights, the data and the noise."""
    runs: Path
    """Folder of all runs; this one gets a folder in it, by the experiment's name."""
    device: str
    threads: int
    precision: str
    """Precision of the forward pass: `float32`, or `bfloat16` by autocast."""
    start: Sequence[Path]
    """Runs, checkpoints or models' folders, the mean of whose weights it begins with where they fit; random ones when
    empty."""


def run(
    make: Callable[[torch.device], Experiment], schedule: Schedule, options: RunOptions
) -> tuple[Path, Mapping[str, float]]:
    """Train the experiment that `make` returns for a device; return the run's folder and its best metrics.

    Raises:
        CheckpointError: there are no weights to begin with, not one of them fits, or they have no mean.
        TrainingError: there is no such device, or no start that 0 updates could keep; or as `train`.
    """
    if options.device == "cuda" and not torch.cuda.is_available():
        raise TrainingError("there is no GPU that this PyTorch can use; train on the cpu")
    if options.updates == 0 and not options.start:
        raise TrainingError("0 updates keep the weights that a run begins with, and there are none: give it a start")
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
