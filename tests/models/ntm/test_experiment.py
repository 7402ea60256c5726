"""Training: the objective, and that a small machine learns a small task."""

import math
from pathlib import Path

import pytest
import torch

from models.ntm.experiment import NtmExperiment, default_config, default_schedule
from models.ntm.network import Config
from models.ntm.tasks import TASKS, Task, copy
from models.training import Schedule, train

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", TASKS)
def test_fresh_machine_loses_about_a_bit_per_bit(name: str) -> None:
    """With every task's default configuration the first loss is near log 2: outputs start near even."""
    torch.manual_seed(0)
    experiment = NtmExperiment(TASKS[name], default_config(TASKS[name]), CPU, batch_size=2)

    with torch.no_grad():
        loss = experiment.loss(torch.Generator().manual_seed(0))

    assert loss.item() == pytest.approx(math.log(2), rel=0.1)
    assert experiment.description["name"] == f"ntm-{name}"
    assert default_schedule(TASKS[name]).updates > 0


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
