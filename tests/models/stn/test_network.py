"""The served network: its theta and tone reproduce the rectified picture from the upload."""

import json
from dataclasses import asdict

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.stn.network import Config, Localisation, StnNetwork
from models.stn.transformer import Kind

KINDS: tuple[Kind, ...] = ("affine", "projective", "tps")


def opinionated(kind: Kind, glimpses: int = 2) -> StnNetwork:
    """A network in evaluation mode whose heads have left the identity."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = StnNetwork(Config(kind=kind, glimpses=glimpses)).eval()
        for stage in (network.localisation, *network.refinements):
            for head in (stage.theta, stage.tone):
                nn.init.normal_(head.weight, std=0.02)
    return network


def pictures(size: int) -> Tensor:
    return torch.rand(size, 1, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", KINDS)
def test_new_network_looks_at_the_whole_picture_as_it_is(kind: Kind) -> None:
    """Before training, theta is the identity, and a picture that spans 0..1 keeps its greys."""
    picture = pictures(2)
    picture[:, :, 0, :2] = torch.tensor([0.0, 1.0])

    answer = StnNetwork(Config(kind=kind))(picture)

    whole = F.interpolate(picture, (28, 28), mode="bilinear", align_corners=False)
    torch.testing.assert_close(answer.tone, torch.tensor([[1.0, 0.0]]).expand(2, -1))
    torch.testing.assert_close(answer.rectified, whole, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_rectified_picture_is_a_sample_of_the_developed_picture(kind: Kind) -> None:
    """It is gain * picture + bias, 0 outside, as theta samples it, in 0..1; the classifier reads nothing else.

    Half of what is found lies outside the picture, and its greys are developed beyond white.
    """
    network, picture = opinionated(kind), pictures(3)
    last = network.refinements[-1]
    assert isinstance(last, Localisation)
    last.tone.bias.copy_(torch.tensor([3.0, 0.4]))
    to_the_right = torch.tensor([[1.0, 0.0, 1.0, 0.0, 1.0, 0.0]])
    last.theta.bias.copy_(network.warp.grid.within(to_the_right, last.theta.bias.unsqueeze(0))[0])

    answer = network(picture)

    grid = network.warp.grid(answer.theta, network.warp.target).view(3, 28, 28, 2)
    gain, bias = answer.tone[:, 0].view(3, 1, 1, 1), answer.tone[:, 1].view(3, 1, 1, 1)
    sample = F.grid_sample(gain * picture + bias, grid, padding_mode="zeros", align_corners=False)
    is_outside = (grid.abs() > 1 + 1 / 64).any(-1).unsqueeze(1)
    assert 0.2 < is_outside.float().mean() < 0.8
    assert answer.rectified[is_outside].eq(0).all()
    assert sample.amax() > 1
    torch.testing.assert_close(answer.rectified, sample.clamp(0, 1))
    torch.testing.assert_close(answer.logits, network.classifier(answer.rectified))


@pytest.mark.parametrize("glimpses", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_theta_and_tone_are_the_corrections_within_what_was_found(kind: Kind, glimpses: int) -> None:
    """The output composes all stages: sampling and developing through one after the other gives the same."""
    network, picture = opinionated(kind, glimpses), pictures(3)

    answer = network(picture)

    darkest, lightest = picture.amin((1, 2, 3), keepdim=True), picture.amax((1, 2, 3), keepdim=True)
    developed = (picture - darkest) / (lightest - darkest)
    grey = (torch.full((3, 1, 1, 1), 0.3) - darkest) / (lightest - darkest)
    found = network.localisation(developed)
    thetas = [found.theta]
    for refinement in network.refinements:
        developed, grey = found.tone.developed(developed), found.tone.developed(grey)
        coarse = thetas[0]
        for theta in thetas[1:]:
            coarse = network.glimpse.grid.within(coarse, theta)
        found = refinement(network.glimpse(developed, coarse))
        thetas.append(found.theta)
    grey = found.tone.developed(grey)
    points = network.warp.grid(thetas[-1], network.warp.target)
    for theta in reversed(thetas[:-1]):
        points = network.glimpse.grid(theta, points)
    target = network.warp.target
    torch.testing.assert_close(network.warp.grid(answer.theta, target), points, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(answer.coarse[:, 0], thetas[0])
    torch.testing.assert_close(answer.coarse[:, -1], coarse)
    assert answer.coarse.shape == (3, glimpses, 6)
    torch.testing.assert_close(answer.tone[:, 0] * 0.3 + answer.tone[:, 1], grey.flatten())


@torch.no_grad()
def test_glimpse_shows_what_was_found_and_its_surroundings() -> None:
    """At the identity it is the picture, and beyond the picture's edge there is nothing."""
    network, picture = StnNetwork(Config(glimpse_side=32, glimpse_reach=1.25)), torch.zeros(1, 1, 64, 64)
    picture[..., 32:] = 1

    seen = network.glimpse(picture, torch.eye(2, 3).view(1, 6))[0, 0]

    assert seen.shape == (32, 32)
    inside = seen[4:-4]
    assert inside[:, :16].eq(0).all()
    assert inside[:, 16:28].eq(1).all()
    assert seen[:, 29:].eq(0).all()


@torch.no_grad()
def test_contrast_and_brightness_change_the_tone_alone() -> None:
    """Greys a x + b with a > 0 give the same theta, rectified picture and logits."""
    network, picture = opinionated("affine"), pictures(2)

    plain, dim = network(picture), network(0.4 * picture + 0.3)

    torch.testing.assert_close(dim.theta, plain.theta, atol=1e-4, rtol=0)
    torch.testing.assert_close(dim.rectified, plain.rectified, atol=1e-4, rtol=0)
    torch.testing.assert_close(dim.tone[:, 0], plain.tone[:, 0] / 0.4, atol=1e-3, rtol=0)


@pytest.mark.parametrize("grey", [0.0, 0.5, 1.0])
@torch.no_grad()
def test_blank_picture_gives_finite_outputs(grey: float) -> None:
    """A picture without any contrast divides nothing by zero."""
    answer = opinionated("tps")(torch.full((1, 1, 64, 64), grey))

    assert all(part.isfinite().all() for part in answer)


@torch.no_grad()
def test_output_does_not_depend_on_batch_mates() -> None:
    """A picture has the same output alone and in a batch."""
    network, picture = opinionated("projective"), pictures(4)

    together = network(picture)

    for i in range(4):
        for whole, single in zip(together, network(picture[i : i + 1]), strict=True):
            torch.testing.assert_close(whole[i : i + 1], single, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_config_survives_json() -> None:
    """A checkpoint's description rebuilds the network it belongs to."""
    network = opinionated("tps")

    rebuilt = StnNetwork(Config(**json.loads(json.dumps(asdict(network.config))))).eval()
    rebuilt.load_state_dict(network.state_dict())

    torch.testing.assert_close(rebuilt(pictures(1)), network(pictures(1)))


@pytest.mark.parametrize("kind", KINDS)
def test_mixed_precision_leaves_coordinates_and_greys_exact(kind: Kind) -> None:
    """Under bfloat16 autocast theta, tone and rectified picture are float32."""
    with torch.autocast("cpu", torch.bfloat16):
        answer = opinionated(kind)(pictures(1))

    assert (answer.theta.dtype, answer.tone.dtype, answer.rectified.dtype) == (torch.float32,) * 3


def test_served_network_is_small() -> None:
    """A picture costs at most seventeen million multiplications."""
    multiplications = 0

    def count(layer: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal multiplications
        if isinstance(layer, nn.Conv2d):
            multiplications += output[0].numel() * layer.weight[0].numel()
        elif isinstance(layer, nn.Linear):
            multiplications += layer.weight.numel()

    network = opinionated("affine")
    for layer in network.modules():
        layer.register_forward_hook(count)
    network(pictures(1))

    assert 1e6 < multiplications <= 17e6
