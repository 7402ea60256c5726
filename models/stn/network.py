"""The served network: one spatial transformer in front of a small CNN.

M. Jaderberg, K. Simonyan, A. Zisserman, K. Kavukcuoglu, "Spatial Transformer Networks", 2015,
https://arxiv.org/abs/1506.02025, section 4.1 and appendix A.

Departures: the localisation network also predicts the *tone*, by which the sampled greys become white ink on
black paper (photographs are mostly the other way round). The classifier reads nothing but the rectified 28x28
picture, so that what it says can be checked by eye. Channels are few: a client waits.

Axes: B batch, S side of the input, P parameters of the transformation.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.stn.transformer import Kind, Warp, grid_generator, identity_head

RECTIFIED_SIDE = 28
LEAST_RANGE = 1 / 32
"""A picture whose greys span less than this is taken to be blank: its noise is not stretched further."""


@dataclass(frozen=True, slots=True)
class Config:
    """The shape of a network; the defaults are what is served."""

    kind: Kind = "affine"
    side: int = 64
    """Side of the input in pixels."""
    localisation_width: int = 16
    """Channels of the localisation network's first layer; later ones have 2, 3, 4 and 4 times as many."""
    localisation_features: int = 128
    classifier_width: int = 16
    """Channels of the classifier's first layer; later ones have 2 and 4 times as many."""
    classifier_features: int = 128


class Rectification(NamedTuple):
    """What the network says about each picture."""

    rectified: Float[Tensor, "B 1 28 28"]
    """The digit, upright and centred, white ink on black, 0..1."""
    logits: Float[Tensor, "B 10"]
    theta: Float[Tensor, "B P"]
    """Target-to-source transformation, normalised coordinates."""
    tone: Float[Tensor, "B 2"]
    """(gain, bias): rectified = clip(gain * sample + bias, 0, 1)."""


class Pose(NamedTuple):
    """Where the digit lies, and how it is inked."""

    theta: Float[Tensor, "B P"]
    tone: Float[Tensor, "B 2"]


class Localisation(nn.Module):
    """f_loc: strided convolutions over the whole picture, then a regression that starts at the identity."""

    def __init__(self, config: Config, identity: Float[Tensor, "P"]) -> None:
        super().__init__()
        c, side = config.localisation_width, config.side // 16
        self.features = nn.Sequential(
            _convolution(1, c, stride=2),
            _convolution(c, 2 * c, stride=2),
            _convolution(2 * c, 3 * c, stride=2),
            _convolution(3 * c, 4 * c),
            _convolution(4 * c, 4 * c, stride=2),
            nn.Flatten(),
            nn.Linear(4 * c * side * side, config.localisation_features),
            nn.ReLU(),
        )
        self.theta = identity_head(config.localisation_features, identity)
        self.tone = identity_head(config.localisation_features, torch.tensor([1.0, 0.0]))

    def forward(self, picture: Float[Tensor, "B 1 S S"]) -> Pose:
        """The convolutions see greys stretched to 0..1; the tone is predicted for those and taken back.

        gain x' + bias with x' = (x - darkest) / range is (gain / range) x + (bias - gain darkest / range).
        """
        darkest = picture.amin((1, 2, 3), keepdim=True)
        span = (picture.amax((1, 2, 3), keepdim=True) - darkest).clamp(min=LEAST_RANGE)
        stretched = (picture - darkest) / span
        features = self.features(stretched - stretched.mean((1, 2, 3), keepdim=True))
        with _exactly(picture):
            theta, tone = self.theta(features.float()), self.tone(features.float())
            gain, bias = tone.split(1, dim=1)
            gain = gain / span.flatten(1)
            return Pose(theta, torch.cat((gain, bias - gain * darkest.flatten(1)), 1))


class StnNetwork(nn.Module):
    """Localise, sample, develop, classify."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        grid = grid_generator(config.kind)
        self.localisation = Localisation(config, grid.identity)
        self.warp = Warp(grid, RECTIFIED_SIDE, RECTIFIED_SIDE, padding="border")
        c = config.classifier_width
        self.classifier = nn.Sequential(
            _convolution(1, c),
            nn.MaxPool2d(2),
            _convolution(c, 2 * c),
            nn.MaxPool2d(2),
            _convolution(2 * c, 4 * c),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(4 * c * (RECTIFIED_SIDE // 8) ** 2, config.classifier_features),
            nn.ReLU(),
            nn.Linear(config.classifier_features, 10),
        )

    def forward(self, picture: Float[Tensor, "B 1 S S"]) -> Rectification:
        """Rectify and read square grey pictures in 0..1."""
        theta, tone = self.localisation(picture)
        gain, bias = tone.view(-1, 2, 1, 1).split(1, dim=1)
        with _exactly(picture):
            rectified = (gain * self.warp(picture, theta) + bias).clamp(0, 1)
        return Rectification(rectified, self.classifier(rectified), theta, tone)


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """3x3, batch normalisation (folded into the weights at export), ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def _exactly(tensor: Tensor) -> torch.autocast:
    """Keep mixed precision away from coordinates and greys: bfloat16 has eight bits, a grid needs more."""
    return torch.autocast(tensor.device.type, enabled=False)
