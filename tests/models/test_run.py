"""A training run does what its options ask for."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.checkpoint import Checkpoint, CheckpointError, load, save
from models.run import RunOptions, run
from models.training import Schedule, TrainingError

SCHEDULE = Schedule(updates=4, warmup_updates=1, evaluate_every=2)


class Line:
    """Fits a line, in the precision that it notes."""

    def __init__(self, device: torch.device) -> None:
        self.network = nn.Linear(1, 1).to(device)
        self.first = self.network.weight.item()
        self.description: Mapping[str, Any] = {"family": "line", "name": "line", "config": {}}
        self.types: set[torch.dtype] = set()

    def loss(self, generator: torch.Generator, _: int) -> Tensor:
        x = torch.randn(16, 1, generator=generator)
        answer: Tensor = self.network(x)
        self.types.add(answer.dtype)
        return (answer.float() - 3 * x).square().mean()

    def evaluate(self, network: nn.Module) -> Mapping[str, float]:
        return {"score": abs(network.get_parameter("weight").item() - 3)}


class Recorded:
    """Makes lines, and keeps them."""

    def __init__(self) -> None:
        self.lines: list[Line] = []

    def __call__(self, device: torch.device) -> Line:
        self.lines.append(Line(device))
        return self.lines[-1]


@pytest.fixture
def options(tmp_path: Path) -> RunOptions:
    """The simplest run."""
    return RunOptions(
        updates=None,
        learning_rate=None,
        cooldown=None,
        seed=1,
        runs=tmp_path,
        device="cpu",
        threads=1,
        precision="float32",
        start=[],
    )


def test_run_gets_a_folder_by_its_name(options: RunOptions) -> None:
    """It holds the best weights, whose metrics are returned, after as many updates as the schedule has."""
    folder, metrics = run(Line, SCHEDULE, options)

    best = load(folder / "best.safetensors")
    assert folder == options.runs / "line"
    assert best.description["metrics"] == metrics
    assert best.description["seed"] == 1
    assert load(folder / "last.safetensors").description["update"] == 4


@pytest.mark.parametrize(("name", "value"), [("updates", 3), ("learning_rate", 0.5), ("cooldown", 0.0)])
def test_what_is_asked_for_replaces_the_schedules_own(options: RunOptions, name: str, value: Any) -> None:
    """Nothing else of it."""
    folder, _ = run(Line, SCHEDULE, replace(options, **{name: value}))

    assert load(folder / "last.safetensors").description["schedule"] == {**asdict(SCHEDULE), name: value}


def test_seed_decides_the_first_weights(options: RunOptions, tmp_path: Path) -> None:
    """As it does the batches."""
    make = Recorded()
    for index, seed in enumerate((1, 1, 2)):
        run(make, SCHEDULE, replace(options, seed=seed, runs=tmp_path / str(index)))

    one, again, other = (line.first for line in make.lines)
    assert one == again != other


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_precision_is_that_of_the_forward_pass(options: RunOptions, precision: str, dtype: torch.dtype) -> None:
    """By autocast."""
    make = Recorded()

    run(make, SCHEDULE, replace(options, precision=precision))

    assert make.lines[0].types == {dtype}


def test_run_begins_with_the_weights_that_it_is_given(
    options: RunOptions, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where they fit; what does not come from there is named, and where it comes from is recorded."""
    start = tmp_path / "older"
    save(Checkpoint({"weight": torch.full((1, 1), 2.5)}, {}), start / "best.safetensors")

    folder, metrics = run(Line, SCHEDULE, replace(options, start=[start]))

    assert metrics["score"] == pytest.approx(0.5, abs=0.1)
    assert capsys.readouterr().out == f"1 tensors do not come from {start}\n  bias\n"
    assert load(folder / "best.safetensors").description["start"] == [str(start)]


def test_run_may_begin_with_the_mean_of_several_and_stay_there(options: RunOptions, tmp_path: Path) -> None:
    """With 0 updates their mean is evaluated and kept as it is; all of them are recorded."""
    places = [tmp_path / "one.safetensors", tmp_path / "two.safetensors"]
    for place, weight in zip(places, (2.0, 3.5), strict=True):
        save(Checkpoint({"weight": torch.full((1, 1), weight), "bias": torch.zeros(1)}, {}), place)

    folder, metrics = run(Line, SCHEDULE, replace(options, updates=0, start=places))

    assert metrics == {"score": 0.25}
    best = load(folder / "best.safetensors")
    assert best.tensors["weight"].item() == 2.75
    assert best.description["start"] == [str(place) for place in places]
    assert best.description["update"] == 0


def test_run_of_no_updates_needs_a_start(options: RunOptions, tmp_path: Path) -> None:
    """Random weights are not worth keeping; this, like a missing start, is reported before anything is created."""
    make = Recorded()

    with pytest.raises(TrainingError, match="give a start"):
        run(make, SCHEDULE, replace(options, updates=0))
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        run(make, SCHEDULE, replace(options, start=[tmp_path / "nothing"]))
    assert not make.lines
    assert not (tmp_path / "line").exists()


def test_weights_that_do_not_fit_at_all_are_refused(options: RunOptions, tmp_path: Path) -> None:
    """Before anything is trained."""
    save(Checkpoint({"other": torch.zeros(1)}, {}), tmp_path / "other.safetensors")

    with pytest.raises(CheckpointError, match=r"other\.safetensors has no tensor that fits"):
        run(Line, SCHEDULE, replace(options, start=[tmp_path / "other.safetensors"]))
    assert not (tmp_path / "line").exists()
