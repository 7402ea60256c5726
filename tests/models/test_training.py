"""The trainer: the same path whether it was stopped or not, and nothing that is lost."""

import csv
import itertools
import signal
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.checkpoint import load, save
from models.errors import TrainingStoppedError
from models.training import Schedule, TrainingError, train, update_generator

CPU = torch.device("cpu")
SCHEDULE = Schedule(updates=30, learning_rate=0.05, warmup_updates=5, evaluate_every=10, checkpoint_seconds=0.0)


class Line:
    """Fits a line with a hidden layer; fails in an update of one's choice."""

    def __init__(
        self,
        *,
        name: str = "line",
        width: int = 4,
        fails_at: int | None = None,
        nan: bool = False,
        signal_at: tuple[int, signal.Signals] | None = None,
    ) -> None:
        self.network = nn.Sequential(nn.Linear(1, width), nn.BatchNorm1d(width), nn.Linear(width, 1))
        self.description: Mapping[str, Any] = {"family": "line", "name": name, "config": {"width": width}}
        self.fails_at = fails_at
        self.nan = nan
        self.signal_at = signal_at
        self.updates = 0
        self.heard: list[int] = []
        self.scores: Iterator[float] = itertools.repeat(0.0)
        self.metric = "slope"

    def loss(self, generator: torch.Generator, update: int) -> Tensor:
        self.heard.append(update)
        if self.signal_at is not None and self.signal_at[0] == update:
            signal.raise_signal(self.signal_at[1])
        if self.updates == self.fails_at:
            if not self.nan:
                raise KeyboardInterrupt
            poisoned: Tensor = torch.nan * self.network(torch.ones(2, 1)).sum()
            return poisoned
        self.updates += 1
        x = torch.randn(16, 1, generator=generator)
        loss: Tensor = (self.network(x) - 3 * x - 1).square().mean()
        return loss

    def evaluate(self, network: nn.Module) -> Mapping[str, float]:
        return {"score": next(self.scores), self.metric: network(torch.ones(1, 1)).item()}


def experiment(**settings: Any) -> Line:
    torch.manual_seed(0)
    return Line(**settings)


def tensors(folder: Path, name: str) -> Mapping[str, Tensor]:
    return load(folder / f"{name}.safetensors").tensors


# --- resuming ---


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_that_a_signal_stops_is_saved_and_goes_on_from_there(tmp_path: Path, number: signal.Signals) -> None:
    """The update in hand is finished, whenever the last checkpoint was; the result is that of an unbroken run."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    schedule = replace(SCHEDULE, checkpoint_seconds=1e9)
    train(experiment(), schedule, whole, seed=1)
    handler = signal.getsignal(number)

    with pytest.raises(TrainingStoppedError, match="stopped at update 8 of 30; the same command goes on") as stopped:
        train(experiment(signal_at=(7, number)), schedule, parts, seed=1)
    assert stopped.value.exit_code == 128 + number
    assert signal.getsignal(number) is handler
    resumed = experiment()
    train(resumed, schedule, parts, seed=1)

    assert resumed.heard == list(range(8, schedule.updates))
    for key, tensor in tensors(whole, "last").items():
        assert torch.equal(tensors(parts, "last")[key], tensor), key


@pytest.mark.usefixtures("foreground")
def test_second_signal_ends_the_run_at_once(tmp_path: Path) -> None:
    """Without the update in hand; what an earlier run has saved is as it was."""
    schedule = replace(SCHEDULE, checkpoint_seconds=1e9)
    train(experiment(), replace(schedule, updates=5), tmp_path, seed=1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    impatient = experiment(signal_at=(7, signal.SIGINT))
    first_signal = impatient.loss

    def loss(generator: torch.Generator, update: int) -> Tensor:
        value = first_signal(generator, update)
        if update == 7:
            signal.raise_signal(signal.SIGINT)
        return value

    impatient.loss = loss  # type: ignore[method-assign]

    with pytest.raises(KeyboardInterrupt):
        train(impatient, schedule, tmp_path, seed=1)
    assert impatient.heard[-1] == 7
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_folder_that_cannot_be_made_is_told_before_the_first_update(tmp_path: Path) -> None:
    """Not when there is something to save for the first time, minutes later."""
    (tmp_path / "file").touch()
    line = experiment()

    with pytest.raises(NotADirectoryError):
        train(line, SCHEDULE, tmp_path / "file" / "run", seed=1)
    assert line.heard == []


@pytest.mark.parametrize("stopped_after", [1, 10, 17, 29])
def test_resumed_run_ends_with_the_weights_of_one_that_was_not_stopped(tmp_path: Path, stopped_after: int) -> None:
    """Bit for bit: weights, their average, the optimiser's moments; whatever the weights were before resuming."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(experiment(), SCHEDULE, whole, seed=1)

    with pytest.raises(KeyboardInterrupt):
        train(experiment(fails_at=stopped_after), SCHEDULE, parts, seed=1)
    assert load(parts / "last.safetensors").description["update"] == stopped_after
    torch.manual_seed(99)
    resumed = Line()
    train(resumed, SCHEDULE, parts, seed=1)

    assert resumed.heard == list(range(stopped_after, SCHEDULE.updates))
    for name in ("last", "best"):
        expected, found = tensors(whole, name), tensors(parts, name)
        assert found.keys() == expected.keys()
        for key, tensor in expected.items():
            assert torch.equal(found[key], tensor), key


def test_resumed_run_keeps_the_record_of_its_start(tmp_path: Path) -> None:
    """Whether it is told of it once more or not; other weights to begin with come too late, and are refused."""
    with pytest.raises(KeyboardInterrupt):
        train(experiment(fails_at=10), SCHEDULE, tmp_path, seed=1, start=["models/draw/1"])

    with pytest.raises(TrainingError, match="with models/draw/1 and not with models/draw/2"):
        train(experiment(), SCHEDULE, tmp_path, seed=1, start=["models/draw/2"])
    train(experiment(), SCHEDULE, tmp_path, seed=1)
    train(experiment(), SCHEDULE, tmp_path, seed=1, start=["models/draw/1"])

    assert load(tmp_path / "last.safetensors").description["start"] == ["models/draw/1"]


def test_run_that_begins_with_weights_is_past_the_easy_updates(tmp_path: Path) -> None:
    """Also when it is resumed and not told of its start again."""
    schedule = replace(SCHEDULE, easy_updates=1000)
    begun, fails = experiment(), experiment(fails_at=10)
    with pytest.raises(KeyboardInterrupt):
        train(fails, schedule, tmp_path / "begun", seed=1, start=["models/ntm/1"])
    train(begun, schedule, tmp_path / "begun", seed=1)
    fresh = experiment()
    train(fresh, schedule, tmp_path / "fresh", seed=1)

    assert fails.heard == list(range(1000, 1011))
    assert begun.heard == list(range(1010, 1000 + SCHEDULE.updates))
    assert fresh.heard == list(range(SCHEDULE.updates))


def test_run_whose_schedule_was_recorded_with_another_field_goes_on(tmp_path: Path) -> None:
    """A schedule is a record; what it looked like once is no reason to refuse a run."""
    with pytest.raises(KeyboardInterrupt):
        train(experiment(fails_at=10), SCHEDULE, tmp_path, seed=1)
    kept = load(tmp_path / "last.safetensors")
    schedule = {**kept.description["schedule"], "weight_decay": 0.0}
    save(replace(kept, description={**kept.description, "schedule": schedule}), tmp_path / "last.safetensors")

    resumed = experiment()
    train(resumed, SCHEDULE, tmp_path, seed=1)

    assert resumed.heard == list(range(10, SCHEDULE.updates))


def test_finished_run_is_not_trained_further(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Asked again for the same number of updates, or for fewer, it says so and returns what it has."""
    first = train(experiment(), SCHEDULE, tmp_path, seed=1)
    before = (tmp_path / "last.safetensors").read_bytes()

    for updates in (30, 20):
        again = experiment(fails_at=0)
        assert train(again, replace(SCHEDULE, updates=updates), tmp_path, seed=1) == first
        assert capsys.readouterr().out == "nothing to do: 30 updates are done already\n"
    assert (tmp_path / "last.safetensors").read_bytes() == before


def test_more_updates_go_on_from_where_it_was(tmp_path: Path) -> None:
    """That is all that it takes to train further."""
    train(experiment(), SCHEDULE, tmp_path, seed=1)

    longer = experiment()
    train(longer, replace(SCHEDULE, updates=40), tmp_path, seed=1)

    assert longer.updates == 10
    assert load(tmp_path / "last.safetensors").description["update"] == 40


@pytest.mark.parametrize(
    ("other", "seed", "match"),
    [
        ({"name": "curve"}, 1, "name is 'line', not 'curve'"),
        ({"width": 5}, 1, "another run: config.width is 4, not 5; move .* away, or choose another --runs"),
        ({}, 2, "seed is 1, not 2"),
    ],
)
def test_folder_of_another_run_is_refused(tmp_path: Path, other: dict[str, Any], seed: int, match: str) -> None:
    """Two runs do not mix, and the one that is there stays as it is."""
    train(experiment(), SCHEDULE, tmp_path, seed=1)
    before = (tmp_path / "last.safetensors").read_bytes()

    with pytest.raises(TrainingError, match=match):
        train(experiment(**other), SCHEDULE, tmp_path, seed=seed)
    assert (tmp_path / "last.safetensors").read_bytes() == before


# --- what goes wrong ---


def test_loss_that_is_not_finite_stops_the_run_and_loses_nothing(tmp_path: Path) -> None:
    """The error names the update; the checkpoint before it is whole, and can be gone on from."""
    with pytest.raises(TrainingError, match=r"the gradient of update 7 is not finite .loss nan.; the last checkpoint"):
        train(experiment(fails_at=7, nan=True), SCHEDULE, tmp_path, seed=1)

    last = load(tmp_path / "last.safetensors")
    assert last.description["update"] == 7
    assert all(tensor.isfinite().all() for tensor in last.tensors.values())
    train(experiment(), SCHEDULE, tmp_path, seed=1)
    assert load(tmp_path / "last.safetensors").description["update"] == 30


# --- what is kept ---


def test_best_weights_are_those_of_the_lowest_score(tmp_path: Path) -> None:
    """Of five evaluations the third is kept, with its metrics; the last weights are kept beside it."""
    line = experiment()
    line.scores = iter([5.0, 3.0, 1.0, 2.0, 4.0])

    metrics = train(line, replace(SCHEDULE, updates=50), tmp_path, seed=1)

    assert metrics["score"] == 1.0
    best = load(tmp_path / "best.safetensors")
    assert best.description["update"] == 30
    assert best.description["metrics"] == metrics
    assert best.tensors.keys() == line.network.state_dict().keys()
    assert load(tmp_path / "last.safetensors").description["update"] == 50


def test_best_weights_are_the_averaged_ones(tmp_path: Path) -> None:
    """They are what was evaluated, and not the network's own."""
    train(experiment(), SCHEDULE, tmp_path, seed=1)

    best, last = tensors(tmp_path, "best"), tensors(tmp_path, "last")
    for name, tensor in best.items():
        assert torch.equal(tensor, last[f"average.{name}"]), name
    assert not torch.equal(best["0.weight"], last["network.0.weight"])


def test_resumed_run_keeps_better_weights_from_before(tmp_path: Path) -> None:
    """Scores since then are compared with the best one of all."""
    before, since = experiment(), experiment()
    before.scores, since.scores = iter([1.0]), iter([3.0, 2.0])
    train(before, replace(SCHEDULE, updates=10), tmp_path, seed=1)

    metrics = train(since, SCHEDULE, tmp_path, seed=1)

    assert metrics["score"] == 1.0
    assert load(tmp_path / "best.safetensors").description["update"] == 10


def test_score_that_was_measured_otherwise_is_not_compared(tmp_path: Path) -> None:
    """A run that is resumed after another metric came in keeps its best weights since then."""
    before, since = experiment(), experiment()
    before.scores, since.scores = iter([1.0]), iter([3.0, 2.0])
    since.metric = "offset"
    train(before, replace(SCHEDULE, updates=10), tmp_path, seed=1)

    metrics = train(since, SCHEDULE, tmp_path, seed=1)

    assert metrics["score"] == 2.0
    assert load(tmp_path / "best.safetensors").description["update"] == 30
    assert "slope" in (tmp_path / "log-until-20.csv").read_text()
    assert (tmp_path / "log.csv").read_text().startswith("update,seconds,loss,score,offset\n20,")


def test_average_lags_behind_the_weights(tmp_path: Path) -> None:
    """It follows avg += (1 - decay) (w - avg), and faster while it is young; without decay it is the weights."""
    train(experiment(), replace(SCHEDULE, average_decay=0.0), tmp_path / "none", seed=1)
    train(experiment(), SCHEDULE, tmp_path / "some", seed=1)

    none, some = tensors(tmp_path / "none", "last"), tensors(tmp_path / "some", "last")
    assert torch.equal(none["average.0.weight"], none["network.0.weight"])
    assert not torch.equal(some["average.0.weight"], some["network.0.weight"])
    assert torch.equal(some["network.0.weight"], none["network.0.weight"])
    assert torch.equal(some["average.1.running_mean"], some["network.1.running_mean"])


@pytest.mark.parametrize(("asked", "decay"), [(0.999, 2 / 11), (0.1, 0.1)])
def test_decay_of_a_young_average_is_no_more_than_its_age_allows(tmp_path: Path, asked: float, decay: float) -> None:
    """After n updates it is (1 + n) / (10 + n) at most, so that the first weights are soon forgotten."""
    line = experiment()
    first = line.network.state_dict()["0.weight"].clone()

    train(line, replace(SCHEDULE, updates=1, average_decay=asked), tmp_path, seed=1)

    last = tensors(tmp_path, "last")
    expected = decay * first + (1 - decay) * last["network.0.weight"]
    torch.testing.assert_close(last["average.0.weight"], expected)
    assert not torch.equal(first, last["network.0.weight"])


def test_log_has_a_row_an_evaluation(tmp_path: Path) -> None:
    """One header, also if the run was resumed."""
    train(experiment(), replace(SCHEDULE, updates=20), tmp_path, seed=1)
    train(experiment(), SCHEDULE, tmp_path, seed=1)

    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["update"] for row in rows] == ["10", "20", "30"]
    assert all(float(row["loss"]) > 0 for row in rows)
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])


# --- the schedule ---


def test_rate_warms_up_stays_and_cools_down() -> None:
    """Linearly up over the warm-up, constant, linearly down to nothing over the last fifth."""
    schedule = Schedule(updates=100, learning_rate=0.5, warmup_updates=10, cooldown=0.2)

    rates = [schedule.rate(update) for update in range(101)]

    assert rates[:10] == pytest.approx([0.05 * (update + 1) for update in range(10)])
    assert rates[10:81] == pytest.approx([0.5] * 71)
    assert rates[80:] == pytest.approx([0.5 * (100 - update) / 20 for update in range(80, 101)])
    assert rates[99] > 0
    assert rates[100] == 0


@pytest.mark.parametrize("warmup_updates", [1, 5])
def test_update_takes_a_step_of_its_rate(tmp_path: Path, warmup_updates: int) -> None:
    """Adam's first step is as long as the learning rate, which the warm-up has shortened."""
    line = experiment()
    first = line.network.state_dict()["2.weight"].clone()
    schedule = replace(SCHEDULE, updates=1, warmup_updates=warmup_updates)

    train(line, schedule, tmp_path, seed=1)

    step = (tensors(tmp_path, "last")["network.2.weight"] - first).abs().max().item()
    assert step == pytest.approx(0.05 / warmup_updates, rel=1e-3)


def test_gradient_is_clipped_to_its_largest_norm(tmp_path: Path) -> None:
    """Of all parameters together: Adam's first moment is a tenth of the first gradient."""
    train(experiment(), replace(SCHEDULE, updates=1, clip_norm=1e-3), tmp_path, seed=1)

    moments = [tensor for name, tensor in tensors(tmp_path, "last").items() if name.endswith(".exp_avg")]
    assert torch.cat([moment.flatten() for moment in moments]).norm().item() == pytest.approx(1e-4, rel=1e-3)


def test_longer_run_begins_as_a_shorter_one_does() -> None:
    """So that a run that is to go on further has lost nothing but the cool-down."""
    short, long = Schedule(updates=1000), Schedule(updates=5000)

    assert [short.rate(update) for update in range(800)] == [long.rate(update) for update in range(800)]


@pytest.mark.parametrize("settings", [{"warmup_updates": 0}, {"cooldown": 0.0}, {"updates": 1}])
def test_schedule_without_a_part_is_still_one(settings: dict[str, Any]) -> None:
    """No warm-up, no cool-down, a single update: rates above zero for every update."""
    schedule = Schedule(**{"updates": 10, **settings})

    assert all(0 < schedule.rate(update) <= schedule.learning_rate for update in range(schedule.updates))


def test_every_update_has_randomness_of_its_own() -> None:
    """Another update draws other numbers, and the same one draws the same."""
    drawn = [torch.rand(4, generator=update_generator(1, update, CPU)).tolist() for update in range(200)]

    assert len({tuple(values) for values in drawn}) == 200
    assert torch.rand(4, generator=update_generator(1, 199, CPU)).tolist() == drawn[199]


def test_every_seed_has_randomness_of_its_own() -> None:
    """Another seed trains on other batches."""
    drawn = [torch.rand(4, generator=update_generator(seed, 7, CPU)).tolist() for seed in range(20)]

    assert len({tuple(values) for values in drawn}) == 20
