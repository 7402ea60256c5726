"""Rectification: from pictures to rows of a request, and from outputs to coordinates in the upload."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from export.manifest import Manifest
from models.stn.transformer import AffineGrid, Warp
from service.media.framing import square
from service.media.picture import Picture, as_rgb
from service.tasks import stn
from service.tasks.transform import Kind

IDENTITY = np.array([1, 0, 0, 0, 1, 0], np.float32)
PLAIN = np.array([1, 0], np.float32)


def manifest(**config: object) -> Manifest:
    return Manifest(
        name="stn-affine", version=1, family="stn", config=config, graphs={}, metrics={}, training={}, producer={},
        files={},
    )  # fmt: skip


def picture(height: int, width: int) -> Picture:
    y, x = np.mgrid[:height, :width]
    return Picture(np.rint(80 + 60 * np.sin(x / 9) + 60 * np.cos(y / 7)).astype(np.uint8))


def reading(
    of: Picture, theta: NDArray[np.float32] = IDENTITY, tone: NDArray[np.float32] = PLAIN, kind: Kind = Kind.AFFINE
) -> stn.Reading:
    rectified = np.arange(784, dtype=np.uint8).reshape(28, 28)
    probabilities = np.array([0.05] * 7 + [0.55, 0.05, 0.05], np.float32)
    return stn.Reading(of, kind, rectified, probabilities, theta, tone)


def test_request_has_a_row_a_picture_of_the_networks_side() -> None:
    """Pictures of any shape become squares; one that has the trained size is used as it is."""
    native = picture(64, 64)

    squares = [stn.network_input(of, manifest(side=64)) for of in (native, picture(30, 90), picture(200, 10))]
    request = stn.request(squares, deadline=5.0)

    assert request.inputs["picture"].shape == (3, 64, 64)
    np.testing.assert_array_equal(request.inputs["picture"][0], native.grey)
    assert (request.rows, request.steps, request.deadline) == (3, 1, 5.0)


def test_reading_names_the_likeliest_class() -> None:
    """The label is the most likely class, and the confidence its probability."""
    read = reading(picture(64, 64))

    assert read.label == 7
    assert read.confidence == pytest.approx(0.55)


@pytest.mark.parametrize(("width", "height"), [(60, 60), (60, 20), (20, 60)])
def test_identity_samples_the_square_around_the_upload(width: int, height: int) -> None:
    """The square has the upload's centre and longer side, so that its corners may be outside the upload."""
    corners = reading(picture(height, width)).corners()

    reach = max(width, height) / 2
    centre = np.array([width, height]) / 2
    expected = centre + reach * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    np.testing.assert_allclose(corners, expected)


def test_quarter_turn_takes_the_corners_around() -> None:
    """Theta that turns clockwise reads the output's top left from the upload's top right."""
    turn = np.array([0, -1, 0, 1, 0, 0], np.float32)

    corners = reading(picture(60, 60), turn).corners()

    np.testing.assert_allclose(corners, [[60, 0], [60, 60], [0, 60], [0, 0]], atol=1e-5)


def test_native_side_is_what_the_network_rectified() -> None:
    """At 28 x 28, the network's own output is returned."""
    read = reading(picture(64, 64))

    np.testing.assert_array_equal(read.sampled(28), read.rectified)


def test_other_sides_are_sampled_from_the_upload() -> None:
    """The identity at the upload's own side is the upload."""
    upload = picture(120, 120)

    np.testing.assert_allclose(reading(upload).sampled(120).astype(int), upload.grey, atol=1)


def test_tone_makes_white_ink_of_dark_ink() -> None:
    """Gain -1 and bias 1 give the negative; ink outside 0..255 is clipped."""
    upload = picture(120, 120)

    negative = reading(upload, tone=np.array([-1, 1], np.float32)).sampled(120)
    bright = reading(upload, tone=np.array([4, 0], np.float32)).sampled(120)

    np.testing.assert_allclose(negative.astype(int), 255 - upload.grey.astype(int), atol=1)
    np.testing.assert_allclose(bright.astype(int), np.minimum(4 * upload.grey.astype(int), 255), atol=4)


@pytest.mark.parametrize("tone", [(1.0, 0.0), (2.0, -0.5), (-1.5, 1.2), (1.0, 0.3), (-1.0, 1.2), (0.0, 0.7)])
@pytest.mark.parametrize(("height", "width"), [(120, 120), (90, 120)])
def test_sample_is_the_networks_where_it_leaves_the_square(tone: tuple[float, float], height: int, width: int) -> None:
    """The sample equals the network's, whatever the tone: points outside the square are black."""
    upload = picture(height, width)
    theta = np.array([0.5, 0, 0.75, 0, 0.5, 0.5], np.float32)

    sampled = reading(upload, theta, np.array(tone, np.float32)).sampled(60)

    gain, bias = tone
    developed = torch.tensor(gain * (square(upload.grey, 120) / 255.0) + bias)[None, None].float()
    expected = Warp(AffineGrid(), 60, 60)(developed, torch.tensor(theta)[None]).clamp(0, 1)[0, 0] * 255
    np.testing.assert_allclose(sampled[:, :44], expected[:, :44], atol=3)
    assert sampled[:, 46:].max() == expected[:, 46:].max() == 0


def test_overlay_marks_the_outline_where_the_corners_are() -> None:
    """The line runs through the corners, and stays close to the outline."""
    upload = picture(160, 160)

    overlay = reading(upload, np.array([0.5, 0, 0, 0, 0.5, 0], np.float32)).overlay()

    marked = np.argwhere((overlay != as_rgb(upload.grey)).any(axis=2))
    np.testing.assert_allclose([marked.min(axis=0), marked.max(axis=0)], [[39.5, 39.5], [119.5, 119.5]], atol=2.5)
    assert not ((marked > 45) & (marked < 115)).all(axis=1).any()


def test_readings_take_their_own_row() -> None:
    """Each reading has the outputs of its own row."""
    pictures = [picture(64, 64), picture(30, 60)]
    request = stn.request([stn.network_input(of, manifest(side=64)) for of in pictures], deadline=5.0)
    rng = np.random.default_rng(0)
    request.outputs |= {
        "rectified": rng.integers(256, size=(2, 28, 28)).astype(np.uint8),
        "probabilities": rng.dirichlet(np.ones(10), 2).astype(np.float32),
        "theta": rng.normal(size=(2, 8)).astype(np.float32),
        "tone": rng.normal(size=(2, 2)).astype(np.float32),
    }

    readings = stn.readings(pictures, request, manifest(kind="projective"))

    for row, read in enumerate(readings):
        assert read.picture is pictures[row]
        assert read.kind is Kind.PROJECTIVE
        for name in ("rectified", "probabilities", "theta", "tone"):
            np.testing.assert_array_equal(getattr(read, name), request.outputs[name][row])
