"""What tests of several rooms share: tiny models, untrained, exported once as both kinds of graph."""

import os
import signal
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from torch import nn

from export.package import export
from models.checkpoint import Checkpoint, save
from models.draw.network import Config as DrawConfig
from models.draw.network import Draw
from models.ntm.network import Config as NtmConfig
from models.ntm.network import NeuralTuringMachine
from models.ntm.tasks import TASKS
from models.stn.network import Config as StnConfig
from models.stn.network import Localisation, StnNetwork
from models.stn.transformer import Kind

torch.set_num_threads(1)  # the tensors are small
settings.register_profile("glimpse", deadline=None)  # no test depends on how fast a machine is
settings.load_profile("glimpse")

KINDS: tuple[Kind, ...] = ("affine", "projective", "tps")


def tiny_stn(kind: Kind) -> StnNetwork:
    """A spatial transformer that, untrained as it is, finds something else in every picture, away from its edges."""
    widths = {"localisation_width": 4, "refinement_width": 4, "classifier_width": 4}
    features = {"localisation_features": 16, "refinement_features": 16, "classifier_features": 16}
    network = StnNetwork(StnConfig(kind=kind, **widths, **features))
    nn.init.normal_(network.localisation.theta.weight, std=0.05)
    network.localisation.theta.bias.data.mul_(0.8)
    for refinement in network.refinements:
        assert isinstance(refinement, Localisation)
        nn.init.normal_(refinement.theta.weight, std=0.02)
    return network


def checkpoint_of(network: StnNetwork | Draw | NeuralTuringMachine, family: str, name: str) -> Checkpoint:
    """What a training run would have kept of a network."""
    description: dict[str, Any] = {
        "family": family,
        "name": name,
        "config": asdict(network.config),
        "seed": 0,
        "schedule": {"updates": 1, "learning_rate": 0.001, "cooldown": 0.2},
        "update": 1,
        "seconds": 0.0,
        "metrics": {"score": 1.0},
    }
    if family == "ntm":
        description["task"] = name.removeprefix("ntm-")
    return Checkpoint(network.state_dict(), description)


@pytest.fixture(autouse=True)
def same_arithmetic() -> Iterator[None]:
    """Every test draws the same weights and sees the same process, in whatever order they run.

    A training run sets the process's threads and flushes its subnormal numbers.
    """
    torch.manual_seed(0)
    yield
    torch.set_flush_denormal(False)
    torch.set_num_threads(1)


@pytest.fixture
def foreground() -> Iterator[None]:
    """This process and its children see signals and file modes as in a terminal, however the tests were started.

    In a shell's background SIGINT is ignored, under `nohup` SIGHUP, and a cautious user's files are private. Handlers
    that the test installs are gone after it.
    """
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    mask = os.umask(0o022)
    yield
    os.umask(mask)
    for number, handler in before.items():
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `NAME.safetensors` of every model that is served."""
    torch.manual_seed(0)
    networks = [
        *(checkpoint_of(tiny_stn(kind), "stn", f"stn-{kind}") for kind in KINDS),
        checkpoint_of(Draw(DrawConfig(hidden_size=16, latent_size=8)), "draw", "draw"),
        *(
            checkpoint_of(
                NeuralTuringMachine(
                    NtmConfig(
                        inputs=task.inputs, outputs=task.outputs, controller_size=16, memory_slots=16, slot_width=8
                    )
                ),
                "ntm",
                f"ntm-{task.name}",
            )
            for task in TASKS.values()
        ),
    ]
    folder = tmp_path_factory.mktemp("checkpoints")
    for checkpoint in networks:
        save(checkpoint, folder / f"{checkpoint.description['name']}.safetensors")
    return folder


@pytest.fixture(scope="session")
def repository(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository with every model that is served, version 1, for both runtimes."""
    folder = tmp_path_factory.mktemp("repository")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit", DeprecationWarning)
        for path in sorted(checkpoints.iterdir()):
            export(path, folder, version=1, torchscript=True)
    return folder


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is set but what a test sets."""
    for name in list(os.environ):
        if name.startswith("GLIMPSE_"):
            monkeypatch.delenv(name)
