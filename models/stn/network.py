"""The served network: spatial transformers in series, in front of a small CNN.

M. Jaderberg, K. Simonyan, A. Zisserman, K. Kavukcuoglu, "Spatial Transformer Networks", 2015,
https://arxiv.org/abs/1506.02025, sections 3.4 and 4.1, and appendix A.

The first transformer locates the digit in the whole picture. Each of the others takes a closer look at the region
that the previous one found, and corrects it. All are affine except the last, which is of the model's family. Their
composition belongs to that family, too, so that the picture is sampled once, through one theta. (C.-H. Lin and
S. Lucey, "Inverse Compositional Spatial Transformer Networks", 2017, https://arxiv.org/abs/1612.03897, compose
transformations in the same way.)

Departures: the localisation networks also predict the *tone*, a linear map that *develops* greys into white ink
on black paper (most photographs are dark on light). Pictures are developed before they are sampled, so that what
lies outside them is black paper, too. The classifier sees only the rectified 28x28 picture, so that its decision
can be checked by eye. Layers have few channels, to keep latency low.

Axes: B batch, S side of the input, P parameters of the transformation.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.stn.transformer import AffineGrid, GridGenerator, Kind, Warp, grid_generator, identity_head

RECTIFIED_SIDE = 28
MIN_RANGE = 1 / 32
"""Range of greys below which a picture counts as blank: its noise is not stretched further."""


@dataclass(frozen=True, slots=True)
class Config:
    """Architecture of the network; the defaults are the served one's."""

    kind: Kind = "affine"
    side: int = 64
    """Side of the input in pixels."""
    localisation_width: int = 16
    """Channels of the localisation network's first layer; later ones have 2, 3, 4 and 4 times as many."""
    localisation_features: int = 128
    """Units of the localisation network's hidden linear layer."""
    glimpses: int = 2
    """Number of closer looks, each at the region that the previous stage found."""
    glimpse_side: int = 32
    """Side of a closer look in pixels."""
    glimpse_reach: float = 1.25
    """Side of the region that a closer look shows, as a multiple of the side of the region found."""
    refinement_width: int = 12
    """Like `localisation_width`, for the networks that take the closer looks."""
    refinement_features: int = 64
    """Like `localisation_features`, likewise."""
    classifier_width: int = 16
    """Channels of the classifier's first layer; the second has twice, later ones have 4 times as many."""
    classifier_depth: int = 5
    """Number of the classifier's convolutions; the third and later ones work on 7x7."""
    classifier_features: int = 128
    """Units of the classifier's hidden linear layer."""


class Rectification(NamedTuple):
    """The network's output for each picture."""

    rectified: Float[Tensor, "B 1 28 28"]
    """The digit, upright and centred, white ink on black, 0..1."""
    logits: Float[Tensor, "B 10"]
    theta: Float[Tensor, "B P"]
    """Target-to-source transformation, normalised coordinates."""
    tone: Float[Tensor, "B 2"]
    """(gain, bias): rectified = clip(sample of gain * picture + bias, 0, 1); outside the picture it is 0."""
    coarse: Float[Tensor, "B G 6"]
    """Affine estimates of theta, one before each of the G closer looks."""


class Tone(NamedTuple):
    """A linear map of greys, x -> gain x + bias."""

    gain: Float[Tensor, "B 1 1 1"]
    bias: Float[Tensor, "B 1 1 1"]

    @classmethod
    def stretching(cls, picture: Float[Tensor, "B 1 S S"]) -> "Tone":
        """Return the tone that stretches each picture's greys to 0..1."""
        darkest = picture.amin((1, 2, 3), keepdim=True)
        gain = 1 / (picture.amax((1, 2, 3), keepdim=True) - darkest).clamp(min=MIN_RANGE)
        return cls(gain, -gain * darkest)

    @classmethod
    def of_greys(cls, greys: Float[Tensor, "B 2"]) -> "Tone":
        """Return the tone that maps the grey of paper to 0 and that of ink to 1; the two must differ."""
        paper, ink = greys.view(-1, 2, 1, 1).split_with_sizes((1, 1), 1)
        gain = 1 / (ink - paper)
        return cls(gain, -gain * paper)

    def developed(self, picture: Float[Tensor, "B 1 S S"]) -> Float[Tensor, "B 1 S S"]:
        """Return pictures with this tone applied."""
        return self.gain * picture + self.bias

    def after(self, first: "Tone") -> "Tone":
        """Return the tone that applies `first` and then this one."""
        return Tone(self.gain * first.gain, self.gain * first.bias + self.bias)


class Pose(NamedTuple):
    """Where the digit is, and the tone that makes it white on black."""

    theta: Float[Tensor, "B P"]
    tone: Tone


class Localisation(nn.Module):
    """f_loc: strided convolutions over the whole picture, then a regression that starts at the identity."""

    def __init__(self, side: int, width: int, features: int, identity: Float[Tensor, "P"]) -> None:
        """`side`: side of the picture, 32 or 64 pixels; `width`: channels of the first layer."""
        super().__init__()
        c, last_side = width, 4
        halvings = (side // last_side).bit_length() - 1
        strides = [2] * (halvings - 1) + [1] * (5 - halvings) + [2]
        channels = [1, c, 2 * c, 3 * c, 4 * c, 4 * c]
        self.features = nn.Sequential(
            *(_convolution(*layer) for layer in zip(channels, channels[1:], strides, strict=False)),
            nn.Flatten(),
            nn.Linear(4 * c * last_side**2, features),
            nn.ReLU(),
        )
        self.theta = identity_head(features, identity)
        self.tone = identity_head(features, torch.tensor([1.0, 0.0]))

    def forward(self, picture: Float[Tensor, "B 1 S S"]) -> Pose:
        """Return the pose of the digit in pictures whose greys are about 0..1; the tone applies to these greys."""
        features = self.features(picture - picture.mean((1, 2, 3), keepdim=True))
        with _in_float32(picture):
            gain, bias = self.tone(features.float()).view(-1, 2, 1, 1).split(1, 1)
            return Pose(self.theta(features.float()), Tone(gain, bias))


class StnNetwork(nn.Module):
    """The whole network: localise, correct in closer looks, develop, sample, classify."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        grid, affine = grid_generator(config.kind), AffineGrid()
        self.localisation = Localisation(
            config.side, config.localisation_width, config.localisation_features, affine.identity
        )
        closer = config.glimpse_side
        self.glimpse = Warp(affine, closer, closer, reach=config.glimpse_reach)
        self.refinements = nn.ModuleList(
            Localisation(closer, config.refinement_width, config.refinement_features, refined.identity)
            for refined in [affine] * (config.glimpses - 1) + [grid]
        )
        self.warp = Warp(grid, RECTIFIED_SIDE, RECTIFIED_SIDE)
        c = config.classifier_width
        self.classifier = nn.Sequential(
            _convolution(1, c),
            nn.MaxPool2d(2),
            _convolution(c, 2 * c),
            nn.MaxPool2d(2),
            _convolution(2 * c, 4 * c),
            *(_convolution(4 * c, 4 * c) for _ in range(config.classifier_depth - 3)),
            nn.Flatten(),
            nn.Linear(4 * c * (RECTIFIED_SIDE // 4) ** 2, config.classifier_features),
            nn.ReLU(),
            nn.Linear(config.classifier_features, 10),
        )

    def forward(self, picture: Float[Tensor, "B 1 S S"]) -> Rectification:
        """Rectify and classify square grey pictures in 0..1."""
        stretching = Tone.stretching(picture)
        found = self.localisation(stretching.developed(picture))
        with _in_float32(picture):
            poses = [Pose(found.theta, found.tone.after(stretching))]
        grids = [self.glimpse.grid] * (len(self.refinements) - 1) + [self.warp.grid]
        for refinement, grid in zip(self.refinements, grids, strict=True):
            poses.append(self._refined(picture, poses[-1], refinement, grid))
        *coarse, (theta, tone) = poses
        with _in_float32(picture):
            rectified = self.warp(tone.developed(picture), theta).clamp(0, 1)
        return Rectification(
            rectified,
            self.classifier(rectified),
            theta,
            torch.cat(tone, 1).flatten(1),
            torch.stack([pose.theta for pose in coarse], 1),
        )

    def _refined(self, picture: Tensor, pose: Pose, refinement: nn.Module, grid: GridGenerator) -> Pose:
        """Return a pose, corrected by a closer look at the region that it describes."""
        with _in_float32(picture):
            seen = self.glimpse(pose.tone.developed(picture), pose.theta)
        correction: Pose = refinement(seen)
        with _in_float32(picture):
            return Pose(grid.within(pose.theta, correction.theta), correction.tone.after(pose.tone))


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """3x3, batch normalisation (folded into the weights at export), ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def _in_float32(tensor: Tensor) -> torch.autocast:
    """Disable autocast for coordinates and greys: bfloat16 has eight bits of precision, a grid needs more."""
    return torch.autocast(tensor.device.type, enabled=False)
