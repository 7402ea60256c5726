"""The figure: one panel per quantity, for any range of values."""

import numpy as np
import pytest

from service.media.figures import Trace, memory_figure
from service.media.picture import Pixels


def figure(changed: dict[str, Trace] | None = None, T: int = 12, bits: int = 8) -> Pixels:
    g = np.random.default_rng(0)
    trace = {
        "inputs": g.random((T, bits + 2)),
        "outputs": g.random((T, bits)),
        "adds": g.normal(size=(T, 20)),
        "reads": g.normal(size=(T, 20)),
        "write_weights": g.random((T, 128)),
        "read_weights": g.random((T, 128)),
    }
    return memory_figure(**{**trace, **(changed or {})})


@pytest.mark.parametrize("T", [1, 12, 42, 1024])
@pytest.mark.parametrize("bits", [1, 8])
def test_figure_holds_episodes_of_any_length(T: int, bits: int) -> None:
    """The figure is in colour on white, however short or long the episode."""
    page = figure(T=T, bits=bits)

    assert page.dtype == np.uint8
    assert page.shape[2] == 3
    assert (page[0] == 255).all()
    assert (page[:, -1] == 255).all()


@pytest.mark.parametrize("name", ["inputs", "outputs", "adds", "reads", "write_weights", "read_weights"])
def test_every_quantity_has_a_panel_of_its_own(name: str) -> None:
    """A change of one quantity at one step changes one place: on the left for inputs, on the right for outputs."""
    width = {"inputs": 10, "outputs": 8, "adds": 20, "reads": 20}.get(name, 128)
    quiet, marked = np.zeros((12, width)), np.zeros((12, width))
    quiet[0, 0] = marked[0, 0] = 1  # keeps the range
    marked[6, 0] = 1

    one, other = figure({name: quiet}), figure({name: marked})
    rows, columns = np.nonzero((one != other).any(axis=-1))

    is_left = name in {"inputs", "adds", "write_weights"}
    assert (columns < one.shape[1] / 2).all() == is_left
    assert np.ptp(columns) + 1 == 40  # 480 pixels over twelve steps
    assert np.ptp(rows) + 1 == (2 if width == 128 else 8)


def test_weightings_run_from_black_to_white() -> None:
    """A weight of 0 is black, and a weight of 1 white."""
    weights = np.zeros((12, 128))
    weights[:, 64] = 1

    page = figure({"write_weights": weights})

    left = page[:, : page.shape[1] // 2]
    assert (left == 0).all(axis=-1).sum() == 480 * 2 * 127


def test_values_that_are_all_equal_are_drawn() -> None:
    """Values without a range, as when nothing is added, do not cause an error."""
    assert figure({"adds": np.zeros((12, 20))}).shape == figure().shape


def test_inputs_that_are_no_bits_are_told_apart() -> None:
    """Priorities below 0 and repeats above 1 are scaled, and the bits beside them look the same as without them."""
    bits = np.tile([0.0, 1.0], (12, 4))
    pages = []
    for first, second in ((-0.9, -0.4), (-0.4, -0.9), (3.0, 9.0), (9.0, 3.0)):
        other = np.zeros((12, 1))
        other[:2, 0] = first, second
        pages.append(figure({"inputs": np.concatenate([bits, other], axis=1)}))

    assert (pages[0] != pages[1]).any()
    assert (pages[2] != pages[3]).any()
    rows = np.flatnonzero((pages[0] != pages[3]).any(axis=(1, 2)))
    assert rows.max() - rows.min() < 2 * 8
