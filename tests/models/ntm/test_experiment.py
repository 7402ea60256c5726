"""Training: the objective, and that a small machine learns a small task."""

import math
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from models.ntm.experiment import RECIPES, NtmExperiment, default_config, default_schedule
from models.ntm.network import Config, NeuralTuringMachine
from models.ntm.tasks import TASKS, Task, copy
from models.training import Schedule, train

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", TASKS)
def test_fresh_machine_loses_about_a_bit_per_bit(name: str) -> None:
    """With every task's default configuration the first loss is near log 2: outputs start near even."""
    torch.manual_seed(0)
    experiment = NtmExperiment(TASKS[name], default_config(TASKS[name]), CPU, batch_size=2)

    with torch.no_grad():
        loss = experiment.loss(torch.Generator().manual_seed(0), 0)

    assert loss.item() == pytest.approx(math.log(2), rel=0.1)
    assert experiment.description["name"] == f"ntm-{name}"
    assert default_schedule(TASKS[name]).updates > 0


@pytest.mark.parametrize("name", TASKS)
def test_recipe_decides_sizes_schedule_and_batch(name: str) -> None:
    """What a task's recipe names reaches the machine, its schedule and its batches; the rest is the default."""
    task, recipe = TASKS[name], RECIPES[name]

    config, schedule = default_config(task), default_schedule(task)

    assert asdict(config) == {**asdict(Config(inputs=task.inputs, outputs=task.outputs)), **recipe.config}
    assert (schedule.updates, schedule.clip_norm) == (recipe.updates, recipe.clip_norm)
    assert schedule.easy_updates == recipe.easy_updates
    assert NtmExperiment(task, config, CPU).batch_size == recipe.batch_size
    assert NtmExperiment(task, config, CPU, batch_size=3).batch_size == 3


def test_sorting_begins_with_few_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sizes of a batch depend on its update: at most 10 vectors in the easy ones, all sizes up to 20 after."""
    task = TASKS["priority-sort"]
    experiment = NtmExperiment(task, Config(inputs=10, outputs=8, controller_size=4), CPU, batch_size=1)
    shown: list[torch.Tensor] = []

    def unroll(inputs: torch.Tensor) -> torch.Tensor:
        shown.append(inputs)
        return inputs[..., :8]

    monkeypatch.setattr(experiment.network, "unroll", unroll)

    def lengths(update: int) -> set[int]:
        shown.clear()
        for seed in range(300):
            experiment.loss(torch.Generator().manual_seed(seed), update)
        return {int(inputs[:, 0, 9].argmax()) for inputs in shown}

    easy_updates = default_schedule(task).easy_updates
    assert lengths(0) == lengths(easy_updates - 1) == set(range(2, 11))
    assert lengths(easy_updates) == set(range(2, 21))


def test_machine_is_rebuilt_from_a_description_of_before_it_had_a_choice_of_addressing() -> None:
    """A description without a field means that field's default: machines that were shipped stay as they are."""
    network = NeuralTuringMachine(Config(inputs=9, outputs=8, controller_size=4))
    described = NtmExperiment(TASKS["copy"], network.config, CPU).description["config"]
    older = {name: value for name, value in described.items() if name != "addressing"}

    NeuralTuringMachine(Config(**older)).load_state_dict(network.state_dict())

    assert Config(**older) == network.config


def test_training_drives_the_errors_of_short_copies_down(tmp_path: Path) -> None:
    """A few updates of the shared trainer teach a small machine most of copying two vectors."""
    torch.manual_seed(0)
    task = Task("copy", 9, 8, copy, training={"length": (1, 2)}, evaluation=({"length": 2},))
    config = Config(inputs=9, outputs=8, controller_size=32, memory_slots=8, slot_width=8)
    experiment = NtmExperiment(task, config, CPU)
    before = experiment.evaluate(experiment.network)["score"]

    schedule = Schedule(updates=100, learning_rate=0.01, warmup_updates=10, evaluate_every=100)
    after = train(experiment, schedule, tmp_path, seed=0)["score"]

    assert after < before / 2
