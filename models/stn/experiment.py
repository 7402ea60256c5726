"""Training: one network for all distortions at once.

M. Jaderberg, K. Simonyan, A. Zisserman, K. Kavukcuoglu, "Spatial Transformer Networks", 2015,
https://arxiv.org/abs/1506.02025, section 4.1 and appendix A.

The paper trains one network per distortion, with the classification loss alone. Here the new position of every
point of the digit is known, since the distortions are synthetic, and it supervises the grid: the output must be
canonical, not merely legible, and training is many times faster. Adam and batch normalisation replace 150,000
updates of plain gradient descent.

Axes: B batch, S side of the network's input.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import accumulate
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from models import mnist
from models.classifier import CleanClassifier
from models.stn.distortion import CONTROL, Distorted, Elastic, framed, uniform
from models.stn.evaluate import DISTORTIONS, challenge, network_rectifier, score
from models.stn.network import Config, StnNetwork
from models.stn.transformer import Kind
from models.training import Schedule

POINT_WEIGHT = 10.0
COARSE_WEIGHT = 3.0
READER_WEIGHT = 1.0
TONE_WEIGHT = 10.0
PIXEL_WEIGHT = 2.0
SHARES: Mapping[str, int] = {
    "R": 5,
    "RTS": 4,
    "P": 37,
    "E": 6,
    "clutter": 10,
    "photograph": 9,
    "scan": 2,
    "clean": 1,
}
"""Relative share of each distortion in a batch."""
HANDWRITING, REWRITTEN_SHARE = Elastic(point_pixels=1.0), 0.5
"""Elastic variation of the digits' shapes, applied before the distortion, and the share of digits that get it."""
INVERTED_SHARE = 0.1
"""Share of the pictures that are inverted."""
EVALUATION_DIGITS = 1_500
EVALUATION_SEED = 20_150_605


SCHEDULE = Schedule(updates=15_000, learning_rate=2e-3, cooldown=0.4)


class StnExperiment:
    """Experiment (see `models.training`) for one kind of transformation."""

    def __init__(
        self,
        kind: Kind,
        data: Path,
        readers: Sequence[CleanClassifier],
        device: torch.device,
        batch_size: int = 256,
    ) -> None:
        """Load MNIST from `data` and distort the validation digits; the loss has `readers` classify what is rectified.

        Raises:
            DatasetError: MNIST cannot be loaded.
        """
        self.readers = [reader.to(device).requires_grad_(False) for reader in readers]
        self.config = Config(kind=kind)
        self.network = StnNetwork(self.config).to(device)
        for module in (*self.readers, self.network):
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # twice as fast on a CPU
        self.description: Mapping[str, Any] = {
            "family": "stn",
            "name": f"stn-{kind}",
            "config": asdict(self.config),
        }
        digits = mnist.load(data, mnist.Split.TRAIN)
        self.images = torch.tensor(digits.images, device=device).unsqueeze(1)
        self.labels = torch.tensor(digits.labels, device=device).long()
        ends = [round(batch_size * part / sum(SHARES.values())) for part in accumulate(SHARES.values())]
        self.sizes = [end - start for start, end in zip([0, *ends[:-1]], ends, strict=True)]
        held_out = mnist.load(data, mnist.Split.VALIDATION)
        few = mnist.Digits(held_out.images[:EVALUATION_DIGITS], held_out.labels[:EVALUATION_DIGITS])
        self.challenges = {
            name: challenge(distortion, few, side=self.config.side, seed=EVALUATION_SEED)
            for name, distortion in DISTORTIONS.items()
        }
        self.control = CONTROL.to(device)

    def loss(self, generator: torch.Generator, _update: int = 0) -> Tensor:
        """Return the cross-entropy plus losses on the grid, the tone and the pixels.

        L = -log p(label) - r log p_readers(label) + a |T_theta(control points) - points|^2
        + a' |T_coarse(control points) - points|^2 + b tone_error(gain greys + bias) + c |rectified - digit|^2,
        each a mean; r, a, a', b and c are the weights of reader, points, coarse, tone and pixels. The readers were
        trained on clean digits and are frozen, so that pictures that they read correctly are canonical. Each reads an
        equal share of the pictures. The term in b can move the tone through a gain of 0, where pictures are uniform and
        classifiers see no digit.
        """
        size, device = sum(self.sizes), generator.device
        chosen = torch.randint(len(self.labels), (size,), generator=generator, device=device)
        digits = self._rewritten(self.images[chosen] / 255, generator)
        pictures, points, greys = self._distort(digits, generator)
        result = self.network(pictures)
        found = self.network.warp.grid(result.theta, self.control)
        coarse = self.network.glimpse.grid(result.coarse.flatten(0, 1), self.control).unflatten(0, (len(digits), -1))
        gain, bias = result.tone.split(1, dim=1)
        return (
            F.cross_entropy(result.logits, self.labels[chosen])
            + READER_WEIGHT * F.cross_entropy(*self._read(result.rectified, self.labels[chosen]))
            + POINT_WEIGHT * F.mse_loss(found, points)
            + COARSE_WEIGHT * F.mse_loss(coarse, points.unsqueeze(1).expand_as(coarse))
            + TONE_WEIGHT * tone_error(gain * greys + bias)
            + PIXEL_WEIGHT * F.mse_loss(result.rectified, digits)
        )

    def evaluate(self, network: nn.Module) -> Mapping[str, float]:
        """Return errors in % by distortion, the readers' means as `read_*`, and as `score` the sum of both means."""
        rectify = network_rectifier(network)
        scores = {name: score([rectify], batches, self.readers)[0] for name, batches in self.challenges.items()}
        errors = {name: result.error_percent for name, result in scores.items()}
        read = {f"read_{name}": fmean(result.readers_error_percent) for name, result in scores.items()}
        return {"score": (sum(errors.values()) + sum(read.values())) / len(scores), **errors, **read}

    def _rewritten(self, digits: Tensor, generator: torch.Generator) -> Tensor:
        """Vary the shape of some digits, as if in another hand."""
        is_rewritten = uniform(generator, (len(digits), 1, 1, 1), 0.0, 1.0) < REWRITTEN_SHARE
        return torch.where(is_rewritten, HANDWRITING.pictures(digits, generator), digits)

    def _read(self, rectified: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the readers' logits and the labels in their order; taking turns, every reader sees all distortions."""
        count = len(self.readers)
        logits = [reader(rectified[turn::count]) for turn, reader in enumerate(self.readers)]
        return torch.cat(logits), torch.cat([labels[turn::count] for turn in range(count)])

    def _distort(self, digits: Tensor, generator: torch.Generator) -> Distorted:
        """Apply each distortion to its share of the batch, and invert some of the pictures."""
        parts = [
            DISTORTIONS[name](part, generator)
            for name, part in zip(SHARES, torch.split(digits, self.sizes), strict=True)
        ]
        pictures = torch.cat([framed(part.pictures, self.config.side) for part in parts])
        points, greys = torch.cat([part.points for part in parts]), torch.cat([part.greys for part in parts])
        is_negative = uniform(generator, (len(digits), 1), 0.0, 1.0) < INVERTED_SHARE
        return Distorted(
            torch.where(is_negative.view(-1, 1, 1, 1), 1 - pictures, pictures),
            points,
            torch.where(is_negative, 1 - greys, greys),
        )


def tone_error(developed: Float[Tensor, "B 2"]) -> Tensor:
    """Return the mean squared distance of developed paper from black and of developed ink from white.

    Values below 0 or above 1 cost nothing, because they are clamped. The tone can therefore overshoot, so that uneven
    light leaves no grey behind.
    """
    paper, ink = developed.unbind(1)
    return (F.relu(paper).square() + F.relu(1 - ink).square()).mean() / 2
