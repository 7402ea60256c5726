"""Small classifiers of clean MNIST digits, which judge what the other models rectify and draw.

They are trained on undistorted digits only, without augmentation. A picture that they read correctly is therefore
canonical: upright, centred, with MNIST's size and stroke width.

Axes: B batch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from models import mnist
from models.checkpoint import Checkpoint, load, load_weights, save

FAMILY = "classifier"
DIGIT_SIDE, HALVINGS = 28, 2
UPDATES = 2_500
BATCH = 128
LEARNING_RATE = 2e-3


@dataclass(frozen=True, slots=True)
class Config:
    """Architecture of a classifier."""

    channels: tuple[int, ...] = (16, 32)
    """Output channels of each convolution; 2x2 max pooling follows the first two."""
    kernel: int = 3
    padding: int = 1
    is_normalised: bool = False
    """Whether batch normalisation follows every convolution."""
    features: int = 128
    """Units of the hidden linear layer."""


READERS: Mapping[str, Config] = {
    "plain": Config(),
    "lenet": Config(channels=(20, 50), kernel=5, padding=0, features=500),
    "normalised": Config(channels=(24, 48, 64), is_normalised=True),
}
"""Architectures of different styles, so that one catches what another misses."""
UNSEEN: Mapping[str, Config] = {"unseen": Config(channels=(32, 64), padding=0)}
"""Architecture that takes no part in training any model."""


class Role(NamedTuple):
    """A set of classifiers with one purpose.

    Readers are part of a training loss. Judges evaluate the result, and have other weights and one more architecture.
    """

    name: str
    seed: int
    configs: Mapping[str, Config]


READER = Role("reader", 1, READERS)
JUDGE = Role("judge", 0, {**READERS, **UNSEEN})


class CleanClassifier(nn.Module):
    """Convolutions and two linear layers, from pictures of digits to logits."""

    def __init__(self, config: Config | None = None) -> None:
        super().__init__()
        config = config or Config()
        layers: list[nn.Module] = []
        side, inputs = DIGIT_SIDE, 1
        for index, channels in enumerate(config.channels):
            layers.append(nn.Conv2d(inputs, channels, config.kernel, padding=config.padding))
            layers += [nn.BatchNorm2d(channels)] * config.is_normalised
            layers.append(nn.ReLU())
            side += 2 * config.padding + 1 - config.kernel
            if index < HALVINGS:
                layers.append(nn.MaxPool2d(2))
                side //= 2
            inputs = channels
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Dropout(0.25),
            nn.Linear(inputs * side**2, config.features),
            nn.ReLU(),
            nn.Linear(config.features, 10),
        )

    def forward(self, picture: Float[Tensor, "B 1 28 28"]) -> Float[Tensor, "B 10"]:
        """Return the logits of pictures in 0..1, white ink on black."""
        logits: Tensor = self.head(self.features(picture))
        return logits


def classifiers(data: Path, folder: Path, role: Role) -> dict[str, CleanClassifier]:
    """Return all classifiers of a role by name, loaded from `folder` or trained and saved there.

    Raises:
        CheckpointError, DatasetError: as for `train_classifier`.
    """
    return {name: classifier_in(data, folder, role, name) for name in role.configs}


def classifier_in(data: Path, folder: Path, role: Role, name: str) -> CleanClassifier:
    """Return one classifier of a role, loaded from `folder` or trained and saved there.

    Raises:
        CheckpointError, DatasetError: as for `train_classifier`.
    """
    path = folder / f"{role.name}-{name}.safetensors"
    return train_classifier(data, path, seed=role.seed, config=role.configs[name])


def train_classifier(data: Path, path: Path, *, seed: int, config: Config | None = None) -> CleanClassifier:
    """Load the classifier at `path`; if there is none, train it on MNIST from `data` and save it there.

    Training takes one to four minutes on one core. The classifier is returned in evaluation mode.

    Raises:
        CheckpointError: `path` is not a checkpoint, or holds another network.
        DatasetError: training needs MNIST, and it cannot be loaded.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # initial weights, batches and dropout
        classifier = CleanClassifier(config)
        if path.exists():
            load_weights(classifier, load(path), path)
        else:
            _fit(classifier, mnist.load(data, mnist.Split.TRAIN), path.stem)
            error = _error_percent(classifier, mnist.load(data, mnist.Split.VALIDATION))
            description = {"family": FAMILY, "seed": seed, "validation_error_percent": round(error, 3)}
            save(Checkpoint(classifier.state_dict(), description), path)
    return classifier.eval()


def _fit(classifier: CleanClassifier, digits: mnist.Digits, name: str) -> None:
    images = torch.tensor(digits.images).unsqueeze(1)
    labels = torch.tensor(digits.labels).long()
    optimizer = torch.optim.Adam(classifier.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=UPDATES)
    classifier.train()
    for _ in tqdm(range(UPDATES), desc=name, unit="update", dynamic_ncols=True):
        chosen = torch.randint(len(labels), (BATCH,))
        loss = F.cross_entropy(classifier(images[chosen] / 255), labels[chosen])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()


@torch.no_grad()
def _error_percent(classifier: CleanClassifier, digits: mnist.Digits) -> float:
    images = torch.tensor(digits.images).unsqueeze(1)
    labels = torch.tensor(digits.labels).long()
    classifier.eval()
    wrong = sum(
        int((classifier(images[i : i + 500] / 255).argmax(1) != labels[i : i + 500]).sum())
        for i in range(0, len(labels), 500)
    )
    return 100 * wrong / len(labels)
