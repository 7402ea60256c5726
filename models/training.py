"""The training loop that every model shares: seeded, resumable, logged.

Rules of this file:

- The batch and the noise of update `n` depend only on `(seed, n)` and on whether the run began with given weights: the
  generator is seeded anew for every update. A run that was stopped and resumed therefore ends with the same weights
  as one that was not.
- Everything needed to resume is in one file, `last.safetensors`, replaced atomically every few minutes and when a
  signal stops the run.
- The result is `best.safetensors`: the running average of the weights at the evaluation with the lowest score.
- To train further, ask for more updates than last time: the learning rate is constant after the warm-up and falls
  linearly to zero over the last `cooldown` share of the requested updates.
"""

import copy
import csv
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from models.checkpoint import Checkpoint, CheckpointError, load, save, starts
from models.errors import ModelError, TrainingStoppedError


class TrainingError(ModelError):
    """Training cannot go on: the loss is not finite, or the folder belongs to another run."""


class Experiment(Protocol):
    """A network with its data and its objective, as the trainer sees it."""

    @property
    def network(self) -> nn.Module:
        """The network, on the device where it is to be trained."""
        ...

    @property
    def description(self) -> Mapping[str, Any]:
        """JSON-serialisable values that rebuild the network: at least `family`, `name` and `config`."""
        ...

    def loss(self, generator: torch.Generator, update: int, /) -> Tensor:
        """The scalar loss on a fresh batch for an update; all randomness comes from `generator`.

        Updates are counted from 0 if the weights were random, and from the schedule's `easy_updates` if the run began
        with given weights.
        """
        ...

    def evaluate(self, network: nn.Module) -> Mapping[str, float]:
        """Return metrics of `network` on held-out data; `score` (lower is better) decides which weights are kept."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How long and how fast to train."""

    updates: int
    """Total number of updates, including those done before the run was resumed."""
    learning_rate: float = 1e-3
    """Adam's step size after the warm-up."""
    warmup_updates: int = 200
    cooldown: float = 0.2
    """Share of the updates, at the end, over which the learning rate falls linearly to zero."""
    clip_norm: float = 5.0
    """Largest norm of the whole gradient."""
    average_decay: float = 0.999
    """Decay of the running average of the weights (0 keeps the weights themselves)."""
    evaluate_every: int = 1_000
    """Updates between evaluations."""
    checkpoint_seconds: float = 120.0
    easy_updates: int = 0
    """Number of first updates that an experiment may make easier, while the network knows nothing."""
    bfloat16: bool = False
    """Run the forward pass under bfloat16 autocast."""

    def rate(self, update: int) -> float:
        """Return the learning rate of an update, counted from 0."""
        warm = min(1.0, (update + 1) / max(self.warmup_updates, 1))
        cooldown_updates = max(round(self.cooldown * self.updates), 1)
        cool = min(1.0, (self.updates - update) / cooldown_updates)
        return self.learning_rate * warm * cool


def update_generator(seed: int, update: int, device: torch.device) -> torch.Generator:
    """Return the generator of an update: a function of `(seed, update)`, so that resuming changes nothing."""
    # 2**40 updates fit below the seed. The golden-ratio multiplier spreads neighbours over 64 bits. PyTorch's CPU
    # generator uses only 32 of them, so the upper half is passed: the lower half does not depend on the seed.
    mixed = ((seed << 40) + update) * 0x9E3779B97F4A7C15 % 2**64
    return torch.Generator(device).manual_seed(mixed >> 32)


def train(
    experiment: Experiment, schedule: Schedule, directory: Path, *, seed: int, start: Sequence[str] = ()
) -> Mapping[str, float]:
    """Train up to `schedule.updates`, resuming from `directory` if it holds a run of the same experiment.

    Args:
        experiment: what is trained.
        schedule: how long and how fast.
        directory: the run's folder.
        seed: the seed of the batches.
        start: where the network's first weights came from, if they are not random; several places if they are a mean.
            It is recorded, and a resumed run accepts no other.

    Returns:
        The metrics of the best evaluation.

    Raises:
        TrainingError: `directory` holds a run of another experiment, seed or start, or the loss is not finite.
        TrainingStoppedError: SIGINT or SIGTERM arrived; the current update was finished, and the run saved.
    """
    run = _Run(experiment, schedule, directory, seed, start)
    run.resume()
    directory.mkdir(parents=True, exist_ok=True)  # now, because the first save comes after minutes of work
    device = next(experiment.network.parameters()).device
    is_done = 0 < run.update >= schedule.updates
    if is_done:
        tqdm.write(f"nothing to do: {run.update} updates are done already")
    progress_bar = tqdm(total=schedule.updates, initial=run.update, unit="update", dynamic_ncols=True, disable=is_done)
    with _signals_noted() as signals, progress_bar as progress:
        saved_at = time.monotonic()
        while run.update < schedule.updates:
            if signals:
                run.save()
                message = f"stopped at update {run.update} of {schedule.updates}; the same command goes on from there"
                raise TrainingStoppedError(message, exit_code=128 + signals[0])
            loss = run.step(update_generator(seed, run.update, device))
            if run.update % schedule.evaluate_every == 0 or run.update == schedule.updates:
                run.evaluate()
            if time.monotonic() - saved_at > schedule.checkpoint_seconds or run.update == schedule.updates:
                run.save()
                saved_at = time.monotonic()
            if run.update % 20 == 0:
                best = run.best_metrics.get("score", float("nan"))
                progress.set_postfix(loss=f"{loss:.4f}", best=f"{best:.4f}", refresh=False)
            progress.update()
    if not run.best_metrics:
        run.evaluate()
        run.save()
    return run.best_metrics


@contextmanager
def _signals_noted() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list, so that no update is interrupted; a second one ends the process at once."""
    noted: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # the only one in which Python handles signals
        yield noted
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def on_signal(number: int, _: FrameType | None) -> None:
        noted.append(number)
        restore()

    for number in numbers:
        signal.signal(number, on_signal)
    try:
        yield noted
    finally:
        restore()


class _Run:
    """The state of a training run: weights, their average, optimiser, counters."""

    def __init__(
        self, experiment: Experiment, schedule: Schedule, directory: Path, seed: int, start: Sequence[str]
    ) -> None:
        self.experiment = experiment
        self.schedule = schedule
        self.directory = directory
        self.seed = seed
        self.start = [*start]
        self.update = 0
        self.seconds = 0.0
        self.best_metrics: Mapping[str, float] = {}
        self._loss_sum = 0.0
        self._loss_count = 0
        self._clock = time.monotonic()
        self.network = experiment.network
        self.average = _copy(self.network)
        self.parameters = [p for p in self.network.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(self.parameters, lr=schedule.learning_rate, foreach=True)

    def step(self, generator: torch.Generator) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.rate(self.update)
        self.network.train()
        device_type = self.parameters[0].device.type
        with torch.autocast(device_type, torch.bfloat16, enabled=self.schedule.bfloat16):
            loss = self.experiment.loss(generator, self.update + self.schedule.easy_updates * bool(self.start))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.parameters, self.schedule.clip_norm)
        if not torch.isfinite(norm):
            raise TrainingError(
                f"the gradient of update {self.update} is not finite (loss {loss.detach().item()}); "
                f"the last checkpoint in {self.directory} is intact"
            )
        self.optimizer.step()
        self.update += 1
        self._follow()
        value = loss.detach().item()
        self._loss_sum += value
        self._loss_count += 1
        return value

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the average towards the weights; young averages follow faster, so that they start without bias."""
        decay = min(self.schedule.average_decay, (1 + self.update) / (10 + self.update))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.network.parameters()), 1 - decay)
        for kept, live in zip(self.average.buffers(), self.network.buffers(), strict=True):
            kept.copy_(live)

    def evaluate(self) -> None:
        self.average.eval()
        with torch.no_grad():
            metrics = {name: float(value) for name, value in self.experiment.evaluate(self.average).items()}
        self._tick()
        self._log({"loss": self._loss_sum / max(self._loss_count, 1), **metrics})
        self._loss_sum, self._loss_count = 0.0, 0
        if metrics.keys() != self.best_metrics.keys():  # the first evaluation, or the first with other metrics
            self.best_metrics = {}
        if metrics["score"] <= self.best_metrics.get("score", float("inf")):
            self.best_metrics = metrics
            save(
                Checkpoint(self.average.state_dict(), self._description()),
                self.directory / "best.safetensors",
            )

    def save(self) -> None:
        self._tick()
        tensors = {
            **{f"network.{name}": tensor for name, tensor in self.network.state_dict().items()},
            **{f"average.{name}": tensor for name, tensor in self.average.state_dict().items()},
        }
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors.update({f"optimizer.{index}.{name}": tensor for name, tensor in state.items()})
        save(Checkpoint(tensors, self._description()), self.directory / "last.safetensors")

    def resume(self) -> None:
        path = self.directory / "last.safetensors"
        if not path.exists():
            return
        checkpoint = load(path)
        here, there = _identity(self._description()), _identity(checkpoint.description)
        differing = [key for key in dict.fromkeys([*here, *there]) if here.get(key) != there.get(key)]
        if differing:
            values = ", ".join(f"{key} is {there.get(key)!r}, not {here.get(key)!r}" for key in differing)
            raise TrainingError(
                f"{path} is of another run: {values}; move {self.directory} away, or choose another --runs"
            )
        try:
            self.network.load_state_dict(_below("network.", checkpoint.tensors))
            self.average.load_state_dict(_below("average.", checkpoint.tensors))
        except RuntimeError as error:
            raise CheckpointError(f"{path} does not fit the network: {error}") from error
        begun_with = starts(checkpoint.description)
        if self.start not in ([], begun_with):
            asked, recorded = " and ".join(self.start), " and ".join(begun_with) or "other weights"
            raise TrainingError(
                f"{path} is of a run that has begun already, with {recorded} and not with {asked}; "
                "give no start to go on with it, or move it away to begin anew"
            )
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _below("optimizer.", checkpoint.tensors).items():
            index, key = name.split(".", 1)
            state.setdefault(int(index), {})[key] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        self.update = checkpoint.description["update"]
        self.seconds = checkpoint.description["seconds"]
        self.best_metrics = checkpoint.description["metrics"]
        self.start = begun_with

    def _description(self) -> Mapping[str, Any]:
        return {
            **self.experiment.description,
            "seed": self.seed,
            "start": self.start,
            "schedule": asdict(self.schedule),
            "update": self.update,
            "seconds": round(self.seconds, 1),
            "metrics": dict(self.best_metrics),
        }

    def _tick(self) -> None:
        now = time.monotonic()
        self.seconds += now - self._clock
        self._clock = now

    def _log(self, values: Mapping[str, float]) -> None:
        path = self.directory / "log.csv"
        row = {"update": self.update, "seconds": round(self.seconds, 1), **values}
        header = ",".join(row)
        if (
            path.exists() and path.read_text().partition("\n")[0].rstrip() != header
        ):  # other metrics were measured before
            path.replace(path.with_name(f"log-until-{self.update}.csv"))
        is_new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            if is_new:
                writer.writeheader()
            writer.writerow({name: f"{value:.6g}" for name, value in row.items()})


def _identity(description: Mapping[str, Any]) -> dict[str, Any]:
    """What tells one run from another, a name for each value."""
    config = {f"config.{name}": value for name, value in description.get("config", {}).items()}
    return {name: description.get(name) for name in ("family", "name", "seed")} | config


def _copy(network: nn.Module) -> nn.Module:
    average = copy.deepcopy(network)
    for parameter in average.parameters():
        parameter.requires_grad_(False)
    return average


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
