"""Drawing: noise by seed, the network's inputs, and drawings from its outputs."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from export.manifest import Manifest
from models.draw import network
from service.engine.request import Request
from service.tasks import draw
from service.tasks.seed import MAX_SEED

MANIFEST = Manifest(
    name="draw", version=1, family="draw", config={"latent_size": 6, "write_filters": 5, "read_filters": 3}, graphs={},
    metrics={}, training={}, producer={}, files={},
)  # fmt: skip
SEEDS = st.integers(0, MAX_SEED)


def generation(**changes: object) -> Request:
    asked: dict[str, object] = {
        "seed": 1, "count": 3, "steps": 8, "digit": None, "temperature": 1.0, "deadline": 9.0,
    }  # fmt: skip
    return draw.generation(MANIFEST, **(asked | changes))  # type: ignore[arg-type]


# --- noise ---


@given(seed=SEEDS, sample=st.integers(0, 63), steps=st.integers(1, 64), longer=st.integers(0, 64))
@settings(max_examples=30)
def test_longer_noise_begins_with_shorter_noise(seed: int, sample: int, steps: int, longer: int) -> None:
    """The noise of a step depends only on (seed, sample, step), to the last bit."""
    np.testing.assert_array_equal(
        draw.noise(seed, sample, steps + longer, 6)[:steps], draw.noise(seed, sample, steps, 6)
    )


@given(seed=SEEDS, sample=st.integers(0, 63))
@settings(max_examples=30)
def test_neighbours_have_other_noise(seed: int, sample: int) -> None:
    """Another seed or sample gives other noise, also if seed and sample are swapped."""
    here = draw.noise(seed, sample, 4, 6)

    assert not np.array_equal(here, draw.noise((seed + 1) % MAX_SEED, sample, 4, 6))
    assert not np.array_equal(here, draw.noise(seed, sample + 1, 4, 6))
    if seed != sample:
        assert not np.array_equal(here, draw.noise(sample, seed, 4, 6))


def test_noise_is_standard_normal() -> None:
    """The noise has mean 0, standard deviation 1, and tails of the right weight."""
    drawn = np.stack([draw.noise(seed, 0, 64, 100) for seed in range(20)])

    assert drawn.mean() == pytest.approx(0, abs=0.02)
    assert drawn.std() == pytest.approx(1, abs=0.01)
    assert (np.abs(drawn) > 1.96).mean() == pytest.approx(0.05, abs=0.005)


def test_every_digit_is_drawn_as_often() -> None:
    """Random digits are uniformly distributed over seeds and samples."""
    drawn = [draw.drawn_digit(seed, sample) for seed in range(100) for sample in range(50)]

    counts = np.bincount(drawn, minlength=10)
    assert len(counts) == 10
    np.testing.assert_allclose(counts, 500, atol=80)


def test_seed_draws_the_same_in_every_release() -> None:
    """Digits and noise of a seed never change, because clients keep seeds."""
    assert [draw.drawn_digit(1, sample) for sample in range(5)] == [3, 9, 6, 4, 0]
    np.testing.assert_allclose(draw.noise(1, 0, 1, 3), [[1.0916891, 0.4558267, 0.70178974]], rtol=1e-6)
    np.testing.assert_allclose(draw.noise(1, 1, 1, 3), [[0.18661235, -0.05541545, -0.37375617]], rtol=1e-6)


# --- what the network is told ---


@pytest.mark.parametrize("steps", [1, 8, 13, 64])
@pytest.mark.parametrize("digit", [None, 0, 9])
def test_condition_is_that_of_training(digit: int | None, steps: int) -> None:
    """The class or its absence, the elapsed share and the pace are encoded as in training."""
    label = torch.tensor([network.NO_CLASS if digit is None else digit])

    np.testing.assert_allclose(draw.condition(digit, steps), network.condition(label, steps)[:, 0], rtol=1e-6)


def test_generation_gives_every_sample_its_own_noise() -> None:
    """Column k of the noise is that of sample k; the request has one row per sample."""
    request = generation()

    assert (request.rows, request.steps, request.deadline) == (3, 8, 9.0)
    for sample in range(3):
        np.testing.assert_array_equal(request.inputs["noise"][:, sample], draw.noise(1, sample, 8, 6))


def test_generation_tells_every_sample_its_digit() -> None:
    """The condition holds the given digit, or the seed's."""
    asked, drawn = generation(digit=4).inputs["condition"], generation().inputs["condition"]

    for sample in range(3):
        np.testing.assert_array_equal(asked[:, sample], draw.condition(4, 8))
        np.testing.assert_array_equal(drawn[:, sample], draw.condition(draw.drawn_digit(1, sample), 8))


@pytest.mark.parametrize("temperature", [0.0, 0.5, 2.0])
def test_temperature_is_a_factor_of_the_noise(temperature: float) -> None:
    """Only the noise is scaled."""
    plain, scaled = generation(), generation(temperature=temperature)

    np.testing.assert_allclose(scaled.inputs["noise"], temperature * plain.inputs["noise"], rtol=1e-6)
    np.testing.assert_array_equal(scaled.inputs["condition"], plain.inputs["condition"])


def test_reconstruction_shows_the_picture_without_its_class() -> None:
    """The picture is binarised as in training, with the seed's noise and without a digit."""
    picture = np.arange(784).reshape(28, 28).astype(np.uint8)

    request = draw.reconstruction(MANIFEST, picture=picture, seed=3, steps=8, deadline=9.0)

    np.testing.assert_array_equal(request.inputs["picture"][0], picture >= 128)
    np.testing.assert_array_equal(request.inputs["noise"][:, 0], draw.noise(3, 0, 8, 6))
    np.testing.assert_array_equal(request.inputs["condition"][:, 0], draw.condition(None, 8))


# --- drawings ---


def computed(rows: int, steps: int, *, reads: bool) -> Request:
    request = generation(count=rows, steps=steps)
    rng = np.random.default_rng(0)
    windows = np.stack(
        [rng.uniform(9, 20, (steps, rows)), rng.uniform(9, 20, (steps, rows)), rng.uniform(1, 2, (steps, rows)),
         rng.uniform(0.5, 1, (steps, rows)), rng.uniform(0.5, 2, (steps, rows))],
        axis=-1,
    ).astype(np.float32)  # fmt: skip
    request.outputs |= {
        "pictures": rng.integers(200, size=(steps, rows, 28, 28), dtype=np.uint8),
        "write_windows": windows,
    }
    if reads:
        request.outputs["read_windows"] = windows[::-1]
    return request


def test_drawing_is_a_column_of_the_outputs() -> None:
    """Each sample has its own frames and windows, named in the order of the graph."""
    request = computed(3, 5, reads=False)

    drawings = draw.drawings(request, MANIFEST)

    assert len(drawings) == 3
    for row, drawing in enumerate(drawings):
        assert (drawing.write_filters, drawing.read_filters) == (5, 3)
        np.testing.assert_array_equal(drawing.frames, request.outputs["pictures"][:, row])
        g_x, g_y, delta, sigma, gamma = request.outputs["write_windows"][2, row].tolist()
        assert drawing.write_window(2) == {"gx": g_x, "gy": g_y, "delta": delta, "sigma": sigma, "gamma": gamma}


@pytest.mark.parametrize("reads", [False, True])
def test_moment_is_a_row_of_the_outputs(*, reads: bool) -> None:
    """All samples at a step equal that step in the drawing of each sample, windows included."""
    request = computed(3, 5, reads=reads)

    for step in range(5):
        samples = draw.moment(request, step, MANIFEST).enlarged(2, with_attention=True)
        alone = [drawing.enlarged(2, with_attention=True)[step] for drawing in draw.drawings(request, MANIFEST)]
        np.testing.assert_array_equal(samples, alone)


def test_single_frame_of_a_drawing_is_a_drawing_of_one() -> None:
    """A frame enlarged alone looks the same as among the others."""
    (drawing,) = draw.drawings(computed(1, 5, reads=True), MANIFEST)

    for step in range(5):
        alone = drawing.only(step)
        assert alone.read_window(0) == drawing.read_window(step)
        np.testing.assert_array_equal(
            alone.enlarged(3, with_attention=True)[0], drawing.enlarged(3, with_attention=True)[step]
        )


def test_windows_are_drawn_only_where_they_are_wanted() -> None:
    """Without windows, frames stay grey; with them, write windows are red and read windows green."""
    (drawing,) = draw.drawings(computed(1, 5, reads=True), MANIFEST)

    plain, marked = (drawing.enlarged(2, with_attention=wanted) for wanted in (False, True))

    assert plain.shape == (5, 56, 56)
    assert marked.shape == (5, 56, 56, 3)
    for colour in ((255, 0, 0), (0, 255, 0)):
        assert (marked == colour).all(axis=-1).any(axis=(1, 2)).all()
    unmarked = (marked[..., 0] == marked[..., 1]) & (marked[..., 1] == marked[..., 2])
    np.testing.assert_array_equal(marked[unmarked][:, 0], plain[unmarked])


def test_bound_is_the_last_steps_pixels_and_every_steps_latent_loss() -> None:
    """Pixels count once, for the finished canvas; the divergence counts at every step."""
    request = computed(1, 3, reads=False)
    request.outputs["losses"] = np.array([[[500, 1]], [[300, 2]], [[100, 4]]], np.float32)

    assert draw.bound_nats(request) == pytest.approx(107)
