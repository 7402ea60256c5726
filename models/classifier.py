"""A small classifier of clean MNIST: the reader that judges what the other models rectify and draw.

It sees undistorted training digits only, without augmentation. A picture that it reads is therefore
canonical: upright, centred, of MNIST's size and stroke.

Axes: B batch.
"""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from models import mnist
from models.checkpoint import Checkpoint, load, load_weights, save

FAMILY = "classifier"
UPDATES = 2_500
BATCH = 128
LEARNING_RATE = 2e-3


class CleanClassifier(nn.Module):
    """Two convolutions and two linear layers: digit -> logits."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.head = nn.Sequential(
            nn.Flatten(), nn.Dropout(0.25), nn.Linear(32 * 7 * 7, 128), nn.ReLU(), nn.Linear(128, 10)
        )

    def forward(self, picture: Float[Tensor, "B 1 28 28"]) -> Float[Tensor, "B 10"]:
        """Logits of digits in 0..1, white ink on black."""
        logits: Tensor = self.head(self.features(picture))
        return logits


def train_classifier(data: Path, path: Path, *, seed: int) -> CleanClassifier:
    """The classifier at `path`; where there is none yet, train it on the digits in `data` and keep it there.

    Training takes about a minute on one core.

    Raises:
        CheckpointError: `path` is no checkpoint, or one of another network.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # the initial weights and the dropout
        classifier = CleanClassifier()
        if path.exists():
            load_weights(classifier, load(path), path)
        else:
            _fit(classifier, mnist.load(data, mnist.Split.TRAIN))
            error = _error_percent(classifier, mnist.load(data, mnist.Split.VALIDATION))
            description = {"family": FAMILY, "seed": seed, "validation_error_percent": round(error, 3)}
            save(Checkpoint(classifier.state_dict(), description), path)
    return classifier.eval()


def _fit(classifier: CleanClassifier, digits: mnist.Digits) -> None:
    images = torch.tensor(digits.images).unsqueeze(1)
    labels = torch.tensor(digits.labels).long()
    optimizer = torch.optim.Adam(classifier.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=UPDATES)
    classifier.train()
    for _ in range(UPDATES):
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
