"""Draws what a neural Turing machine does, as in figure 6 of the paper.

Graves, Wayne, Danihelka, "Neural Turing Machines", 2014, https://arxiv.org/abs/1410.5401. Unlike in the paper, all
memory locations are shown, not only those in use, so that the reader can see which are used.

The left column shows what goes into the memory, the right what comes out; time runs from left to right in every panel:

    inputs              outputs             dark is low, bright is high
    adds                reads               dark is low, bright is high
    write weightings    read weightings     one row per memory location; black is a weight of 0, white of 1

Axis letters: `T` steps, `I` input and `O` output bits; `N` memory locations and `M` vector elements, head by head.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from service.media.lettering import lettering
from service.media.picture import Pixels, as_rgb

Trace = NDArray[np.floating]

PANEL_WIDTH = 480
VECTOR_ROW_HEIGHT = 8
LOCATION_ROW_HEIGHT = 2
MARGIN = 28
TITLE_SIZE, LABEL_SIZE = 16, 13
PAPER, INK, PALE_INK = 255, 30, 110


def memory_figure(
    *, inputs: Trace, outputs: Trace, adds: Trace, reads: Trace, write_weights: Trace, read_weights: Trace
) -> Pixels:
    """Draw the trace of an episode as one figure, [H W 3] uint8.

    Args:
        inputs: [T I], 0..1; the scale of a channel that exceeds this range (priorities, repeats) is widened to fit.
        outputs: [T O], 0..1.
        adds: [T M], vectors added to the memory.
        reads: [T M], vectors read from the memory.
        write_weights: [T N], 0..1.
        read_weights: [T N], 0..1.
    """
    left = (_bits("Inputs", inputs), _vectors("Adds", adds), _weightings("Write weightings", write_weights))
    right = (
        _bits("Outputs", outputs),
        _vectors("Reads", reads),
        _weightings("Read weightings", read_weights),
    )
    rows = [_beside(*_equally_tall(pair)) for pair in zip(left, right, strict=True)]
    figure = np.concatenate(rows)
    return np.pad(figure, ((MARGIN // 2, MARGIN // 2), (MARGIN // 2, MARGIN), (0, 0)), constant_values=PAPER)


def _bits(title: str, values: Trace) -> Pixels:
    low, high = np.minimum(values.min(axis=0), 0), np.maximum(values.max(axis=0), 1)
    return _panel(title, "bit", _coloured((values - low) / (high - low), 0, 1), VECTOR_ROW_HEIGHT)


def _vectors(title: str, values: Trace) -> Pixels:
    low, high = float(values.min()), float(values.max())
    return _panel(f"{title}  ({low:.1f} to {high:.1f})", "element", _coloured(values, low, high), VECTOR_ROW_HEIGHT)


def _weightings(title: str, weights: Trace) -> Pixels:
    return _panel(title, "location", as_rgb(_levels(weights, 0, 1)), LOCATION_ROW_HEIGHT)


def _levels(values: Trace, low: float, high: float) -> Pixels:
    """Map `low`..`high` linearly to 0..255; clip values outside."""
    return np.asarray(np.rint(np.clip((values - low) / max(high - low, 1e-12), 0, 1) * 255), np.uint8)


def _coloured(values: Trace, low: float, high: float) -> Pixels:
    colours = cv2.applyColorMap(np.ascontiguousarray(_levels(values, low, high)), cv2.COLORMAP_VIRIDIS)
    return np.asarray(cv2.cvtColor(colours, cv2.COLOR_BGR2RGB), np.uint8)


def _panel(title: str, row_name: str, cells: Pixels, row_height: int) -> Pixels:
    """Draw [T R 3] as blocks, time to the right, in a thin frame with a title and axis labels."""
    step_width = max(1, PANEL_WIDTH // len(cells))
    blocks = cells.swapaxes(0, 1).repeat(row_height, axis=0).repeat(step_width, axis=1)
    framed = np.pad(blocks, ((1, 1), (1, 1), (0, 0)), constant_values=INK)
    panel = np.pad(framed, ((MARGIN, MARGIN), (MARGIN, 0), (0, 0)), constant_values=PAPER)
    _write(panel, lettering(title, TITLE_SIZE), MARGIN - TITLE_SIZE - 8, MARGIN, INK)
    height, width = framed.shape[:2]
    last_step = lettering(str(len(cells)), LABEL_SIZE)
    _write(panel, lettering("step 1", LABEL_SIZE), MARGIN + height + 2, MARGIN, PALE_INK)
    _write(panel, last_step, MARGIN + height + 2, MARGIN + width - last_step.shape[1], PALE_INK)
    rows = np.rot90(lettering(row_name, LABEL_SIZE))
    _write(panel, rows, MARGIN + (height - rows.shape[0]) // 2, MARGIN - rows.shape[1] - 2, PALE_INK)
    return panel


def _write(page: Pixels, text: Pixels, top: int, left: int, ink: int) -> None:
    """Draw text onto white paper in place; crop what does not fit."""
    place = page[top : top + text.shape[0], left : left + text.shape[1]]
    covered = text[: place.shape[0], : place.shape[1], None] / 255
    place[:] = np.rint(PAPER + (ink - PAPER) * covered)


def _equally_tall(panels: tuple[Pixels, Pixels]) -> list[Pixels]:
    height = max(len(panel) for panel in panels)
    return [np.pad(panel, ((0, height - len(panel)), (0, 0), (0, 0)), constant_values=PAPER) for panel in panels]


def _beside(left: Pixels, right: Pixels) -> Pixels:
    return np.concatenate([left, np.full_like(left[:, : MARGIN // 2], PAPER), right], axis=1)
