"""The neural Turing machine at work, drawn as in figure 6 of the paper.

Neural Turing Machines, Alex Graves, Greg Wayne, Ivo Danihelka, 2014, https://arxiv.org/abs/1410.5401. Where
we depart from it: all memory locations are shown, not the few that are used, since which are used is for the
reader to see.

Left what goes into the memory, right what comes out of it; time runs to the right in every panel:

    inputs              outputs             bits, vectors: low to high from dark to light
    adds                reads
    write weightings    read weightings     a row a memory location, black is no attention and white is all

Axis letters: `T` steps, `I` input and `O` output bits, `N` memory locations, `M` their width.
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
    """Draw what a neural Turing machine did, as [H W 3].

    Args:
        inputs: [T I], from 0 to 1; a row that leaves this range, as priorities and repeats do, has a range of its own.
        outputs: [T O], from 0 to 1.
        adds: [T M], what was added to the memory.
        reads: [T M], what was read from it.
        write_weights: [T N], from 0 to 1.
        read_weights: [T N], from 0 to 1.
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
    """Bring `low`..`high` to 0..255."""
    return np.asarray(np.rint(np.clip((values - low) / max(high - low, 1e-12), 0, 1) * 255), np.uint8)


def _coloured(values: Trace, low: float, high: float) -> Pixels:
    colours = cv2.applyColorMap(np.ascontiguousarray(_levels(values, low, high)), cv2.COLORMAP_VIRIDIS)
    return np.asarray(cv2.cvtColor(colours, cv2.COLOR_BGR2RGB), np.uint8)


def _panel(title: str, row_name: str, cells: Pixels, row_height: int) -> Pixels:
    """Draw [T R 3] as blocks, time to the right, in a thin frame with a title above and names at its axes."""
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
    """Put lettering on white paper, in place; what does not fit is cut off."""
    place = page[top : top + text.shape[0], left : left + text.shape[1]]
    covered = text[: place.shape[0], : place.shape[1], None] / 255
    place[:] = np.rint(PAPER + (ink - PAPER) * covered)


def _equally_tall(panels: tuple[Pixels, Pixels]) -> list[Pixels]:
    height = max(len(panel) for panel in panels)
    return [np.pad(panel, ((0, height - len(panel)), (0, 0), (0, 0)), constant_values=PAPER) for panel in panels]


def _beside(left: Pixels, right: Pixels) -> Pixels:
    return np.concatenate([left, np.full_like(left[:, : MARGIN // 2], PAPER), right], axis=1)
