"""Distortions: points are where they are reported to be, and pictures are framed as the service frames uploads."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import models.stn.distortion
from models.stn.distortion import (
    CORNERS,
    DRAWS,
    Clutter,
    Distortion,
    Elastic,
    Perspective,
    Rotation,
    RotationScaleTranslation,
    framed,
    homography,
    normal,
    pulled_corners,
    similar_corners,
)
from models.stn.photograph import SCAN, Photograph
from models.stn.transformer import ThinPlateSplineGrid, pixel_centres

DISTORTIONS: tuple[Distortion, ...] = (
    Rotation(),
    RotationScaleTranslation(),
    Perspective(),
    Elastic(),
    Clutter(),
    Photograph(),
    SCAN,
)
DARK_ROOM = Photograph(
    light_ink_share=1.0, contrast=(1.0, 1.0), slope=0.0, blotch=0.0, noise=0.0, blur=0.0, sharpness=1.0
)
"""White ink on black, as MNIST has it."""


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def strokes(size: int) -> Tensor:
    """Digits of a kind: random blobs within the ink's box."""
    ink = torch.rand(size, 1, 5, 5, generator=generator(9))
    return torch.nn.functional.pad(torch.nn.functional.interpolate(ink, (20, 20)), (4, 4, 4, 4))


def dots(points: Tensor) -> Tensor:
    """A 28x28 picture for each point, with a small blob there."""
    distance = (pixel_centres(28, 28) - points.unsqueeze(1)).square().sum(-1)
    return (-distance / (2 * 0.1**2)).exp().view(-1, 1, 28, 28)


def centroid(pictures: Tensor) -> Tensor:
    mass = pictures.flatten(1) / pictures.flatten(1).sum(1, keepdim=True)
    return mass @ pixel_centres(*pictures.shape[-2:])


@pytest.mark.parametrize("distortion", DISTORTIONS, ids=lambda d: type(d).__name__)
def test_same_seed_gives_the_same_pictures(distortion: Distortion) -> None:
    """A distortion is a function of digits and seed, and another seed gives another one."""
    first = distortion(strokes(4), generator(1))
    again = distortion(strokes(4), generator(1))
    other = framed(distortion(strokes(4), generator(2)).pictures, 64)

    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert (framed(first.pictures, 64) - other).abs().max() > 0.1


@pytest.mark.parametrize("distortion", DISTORTIONS, ids=lambda d: type(d).__name__)
def test_pictures_are_greys_and_points_are_near(distortion: Distortion) -> None:
    """Greys lie in 0..1, and no point is far outside the picture."""
    pictures, points, _ = distortion(strokes(32), generator(3))

    assert pictures.amin() >= 0
    assert pictures.amax() <= 1
    assert points.shape == (32, 16, 2)
    assert points.abs().max() < 3


@pytest.mark.parametrize(
    "distortion",
    [
        Rotation(),
        RotationScaleTranslation(),
        Perspective(corner_pixels=2.0),
        Elastic(),
        Clutter(patches=(0, 0)),
        DARK_ROOM,
    ],
    ids=lambda d: type(d).__name__,
)
@pytest.mark.parametrize("k", [0, 6, 13])
def test_ink_at_a_control_point_is_found_at_its_point(distortion: Distortion, k: int) -> None:
    """A dot drawn at control point k of the digit lies at points[k] of the network's input."""
    control = ThinPlateSplineGrid().control
    inner = 0.6 * control  # away from the frame's edge, where a dot would be cut

    distorted = distortion(dots(inner[k].expand(12, -1)), generator(4))

    # The inner point's own place, by the smooth map through the sixteen points.
    place = ThinPlateSplineGrid()(distorted.points.flatten(1), inner[k : k + 1])[:, 0]
    torch.testing.assert_close(centroid(framed(distorted.pictures, 64)), place, atol=0.06, rtol=0)


def test_rotation_by_nothing_is_the_digit() -> None:
    """With 0 degrees the digit and its control points stay."""
    pictures, points, _ = Rotation(degrees=0.0)(strokes(3), generator())

    torch.testing.assert_close(pictures, strokes(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(points, ThinPlateSplineGrid().control.expand(3, -1, -1), atol=1e-5, rtol=0)


def test_quarter_turn_takes_the_top_left_corner_to_the_top_right() -> None:
    """Positive angles turn clockwise to the eye, since y points down."""
    corners = similar_corners(torch.tensor([90.0]), torch.tensor([0.5]), torch.tensor([[0.25, 0.0]]))

    torch.testing.assert_close(corners[0, 0], torch.tensor([0.75, -0.5]), atol=1e-6, rtol=0)


def test_homography_takes_corners_to_corners() -> None:
    """The four corners of the digit land on the four that were asked for."""
    corners = torch.tensor(CORNERS) * 0.8 + 0.1 * torch.randn(6, 4, 2, generator=generator())

    matrix = homography(corners)

    mapped = torch.tensor([(*corner, 1.0) for corner in CORNERS]) @ matrix.mT
    torch.testing.assert_close(mapped[..., :2] / mapped[..., 2:], corners, atol=1e-4, rtol=0)


def test_pulled_corners_never_fold_the_picture() -> None:
    """Every quadrilateral turns the same way at all its corners."""
    square = similar_corners(torch.zeros(2000), torch.full((2000,), 0.8), torch.zeros(2000, 2))

    corners = pulled_corners(square, 5 * 2 / 28, generator()).numpy()

    for i in range(4):
        before, here, after = corners[:, i - 1], corners[:, i], corners[:, (i + 1) % 4]
        (a, b), (c, d) = (here - before).T, (after - here).T
        assert (a * d - b * c > 0).all()


def test_threshold_decides_which_corners_are_redrawn() -> None:
    """None, the folded ones, or the nearly folded ones, too; corners that are not redrawn stay the same."""
    square = similar_corners(torch.zeros(2000), torch.full((2000,), 0.8), torch.zeros(2000, 2))

    as_drawn, unfolded, usual = (
        pulled_corners(square, 5 * 2 / 28, generator(), **least)
        for least in ({"min_turn": -math.inf}, {"min_turn": 0.0}, {})
    )

    torch.testing.assert_close(as_drawn, square + 5 * 2 / 28 * normal(generator(), (DRAWS, 2000, 4, 2))[0])
    folded, flat = ((other != as_drawn).any(-1).any(-1) for other in (unfolded, usual))
    assert 0 < folded.sum() < flat.sum() < 200
    assert (folded <= flat).all()


def test_pulled_corners_keep_the_deviation_that_was_asked_for() -> None:
    """Small pulls are never drawn anew, so that their deviation is untouched."""
    square = similar_corners(torch.zeros(4000), torch.ones(4000), torch.zeros(4000, 2))

    pulled = pulled_corners(square, 0.05, generator()) - square

    assert float(pulled.std()) == pytest.approx(0.05, rel=0.02)


def test_perspective_pulls_corners_by_pixels_of_the_digit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Displacements are in pixels of the digit, each of which is 2/28 in normalised coordinates."""
    monkeypatch.setattr(models.stn.distortion, "CONTROL", torch.tensor(CORNERS))

    points = Perspective(scale=(1.0, 1.0), corner_pixels=1.0)(strokes(1000), generator()).points

    assert float((points - torch.tensor(CORNERS)).std()) == pytest.approx(2 / 28, rel=0.03)


def test_elastic_points_are_those_that_the_spline_takes_to_the_control_points() -> None:
    """The pictures show the digit's point f(p) at p, and the points invert f."""
    elastic = Elastic()
    moved = torch.randn(64, 32, generator=generator(5)) * elastic.point_pixels * 2 / 28
    spline = ThinPlateSplineGrid(reach=1.0)

    points = elastic(strokes(64), generator(5)).points

    error = (spline(spline.identity + moved, points) - ThinPlateSplineGrid().control).norm(dim=-1)
    assert float(error.quantile(0.98)) < 1e-3


def test_elastic_pictures_can_be_had_alone() -> None:
    """They are those that come with the points."""
    digits = strokes(16)

    torch.testing.assert_close(Elastic().pictures(digits, generator(5)), Elastic()(digits, generator(5)).pictures)


def test_clutter_adds_patches_and_leaves_the_digit() -> None:
    """The digit is a copy, pixel for pixel; at most 16 patches of 36 pixels lie over and around it."""
    clutter, digits = Clutter(), strokes(8)

    pictures, points, _ = clutter(digits, generator(6))

    middle = (points.mean(1) + 1) * 30
    for picture, digit, (x, y) in zip(pictures, digits, middle.round().int().tolist(), strict=True):
        around = picture.clone()
        window = around[0, y - 14 : y + 14, x - 14 : x + 14]
        assert (window >= digit[0] - 1e-4).all()
        window[digit[0] > 0] = 0
        assert 0 < int((around > 1e-4).sum()) <= 16 * 36


def test_clutter_has_as_many_patches_of_other_digits_as_were_asked_for() -> None:
    """Beside a white digit, a black one's picture has one or two white patches, each as often, and no black ones."""
    clutter, digits = Clutter(patches=(1, 2)), torch.stack((torch.zeros(1, 28, 28), torch.ones(1, 28, 28)))

    areas = [int((clutter(digits, generator(seed)).pictures[0] > 0.5).sum()) for seed in range(40)]

    assert min(areas) == 36
    assert 36 < max(areas) <= 2 * 36
    assert 10 <= areas.count(36) <= 30


def test_framed_picture_is_padded_with_the_mean_of_its_ring() -> None:
    """A wide picture gets bands above and below, of the ring's grey, and its middle stays in the middle."""
    picture = torch.full((1, 1, 32, 64), 0.25)
    picture[..., 1:-1, 1:-1] = 0.75

    square = framed(picture, 64)[0, 0]

    assert square[:15].eq(0.25).all()
    assert square[-15:].eq(0.25).all()
    assert square[20:44, 2:-2].eq(0.75).all()


def test_framed_picture_that_shrinks_is_averaged() -> None:
    """A fine checkerboard becomes grey instead of stripes."""
    board = (torch.arange(192).view(-1, 1) + torch.arange(192)) % 2

    small = framed(board.float().view(1, 1, 192, 192), 64)

    np.testing.assert_allclose(small[..., 1:-1, 1:-1].numpy(), 0.5, atol=0.01)


@pytest.mark.parametrize(("light_ink_share", "sign"), [(0.0, -1), (1.0, 1)])
def test_photograph_has_the_ink_that_was_asked_for(light_ink_share: float, sign: int) -> None:
    """Dark ink lowers the greys of the strokes, light ink raises them."""
    flat = Photograph(fill=(0.3, 0.5), light_ink_share=light_ink_share, slope=0.0, blotch=0.0, noise=0.0, blur=0.0)

    pictures, _, greys = flat(strokes(16), generator(7))

    paper = pictures.flatten(1).median(1).values.view(-1, 1, 1, 1)
    assert (((pictures - paper) * sign).amax((1, 2, 3)) > 0.05).all()
    assert ((pictures - paper) * sign).amin() > -1e-4
    torch.testing.assert_close(greys[:, :1], paper.flatten(1))
    assert (((pictures - greys[:, 1].view(-1, 1, 1, 1)) * sign).amax() < 1e-4).all()
