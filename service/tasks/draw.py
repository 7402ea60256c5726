"""Drawing with DRAW: generation of pictures from a seed, and reconstruction of a given picture, step by step."""

import threading
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.manifest import Array, Manifest
from service.engine.request import Request
from service.media.montage import enlarge
from service.media.overlay import GREEN, RED, draw_windows
from service.media.picture import Pixels, as_rgb

Floats = NDArray[np.float32]

CLASSES = 10
NO_CLASS = 10
NOISE_STREAM, DIGIT_STREAM = 0, 1
"""Indices of a sample's random streams, which use disjoint ranges of the generator's counter."""
MIN_STEPS = 8
"""Minimum number of steps in training, which defines a pace of 1."""
HALF_WHITE = 127
"""Grey value above which a pixel counts as white."""
PARAMETERS = ("gx", "gy", "delta", "sigma", "gamma")
"""Names of an attention window's parameters, in the graph's order; all but gamma are in pixels of the canvas."""


def noise(seed: int, sample: int, steps: int, size: int) -> Floats:
    """Return standard normal noise, [steps size] float32, that depends only on (seed, sample, step).

    The key of the counter-based generator is (seed, sample), and its counter advances with the steps, so that the noise
    of a longer drawing begins with that of a shorter one.
    """
    return _generator(seed, sample, NOISE_STREAM).standard_normal((steps, size), dtype=np.float32)


def drawn_digit(seed: int, sample: int) -> int:
    """Return a random digit, 0..9, uniformly distributed, that depends only on (seed, sample)."""
    return int(_generator(seed, sample, DIGIT_STREAM).integers(CLASSES))


def digit_to_draw(asked: int | None, seed: int, sample: int) -> int:
    """Return the digit that a sample is to show: `asked`, or a random one if that is None."""
    return drawn_digit(seed, sample) if asked is None else asked


class _Thread(threading.local):
    """A generator per thread, and the state that it is reset to before every use.

    Creating a generator takes as long as drawing the noise of many steps, because it gathers entropy even with a key.
    """

    def __init__(self) -> None:
        self.generator = np.random.Generator(np.random.Philox())
        self.state: Any = np.random.Philox(key=0, counter=0).state


_thread = _Thread()


def _generator(seed: int, sample: int, stream: int) -> np.random.Generator:
    """Return the thread's generator, reset to the start of a stream; it is only valid until the next call."""
    inner = _thread.state["state"]
    inner["key"][:] = seed, sample
    inner["counter"][:] = 0, 0, 0, stream
    _thread.generator.bit_generator.state = _thread.state
    return _thread.generator


@cache  # of some hundred combinations, 3 kB at most each
def condition(digit: int | None, steps: int) -> Floats:
    """Return the network's condition at every step, [steps 13] float32, read-only.

    It is the digit one-hot, or index 10 if the digit is withheld (None), the share of steps done, and the pace.
    """
    conditions = np.zeros((steps, CLASSES + 3), np.float32)
    conditions[:, NO_CLASS if digit is None else digit] = 1
    conditions[:, -2] = np.arange(steps, dtype=np.float32) / steps
    conditions[:, -1] = MIN_STEPS / steps
    conditions.flags.writeable = False
    return conditions


def generation(
    manifest: Manifest,
    *,
    seed: int,
    count: int,
    steps: int,
    digit: int | None,
    temperature: float,
    deadline: float,
) -> Request:
    """Return a request for new drawings.

    Args:
        manifest: of the model.
        seed: 0..2**53 - 1.
        count: number of drawings.
        steps: number of steps of each.
        digit: 0..9, or None for a random digit per drawing.
        temperature: scale of the noise, 0..2.
        deadline: on the engine's clock (`time.monotonic`), in seconds.
    """
    size = int(manifest.config["latent_size"])
    noise_rows = _side_by_side([noise(seed, sample, steps, size) for sample in range(count)])
    if temperature != 1:
        noise_rows *= np.float32(temperature)
    # Sample p(digit) p(picture | digit) if no digit is given: the network draws better when it is conditioned on one.
    conditions = _side_by_side([condition(digit_to_draw(digit, seed, sample), steps) for sample in range(count)])
    return Request({"noise": noise_rows, "condition": conditions}, count, steps, deadline)


def reconstruction(manifest: Manifest, *, picture: Pixels, seed: int, steps: int, deadline: float) -> Request:
    """Return a request to reconstruct a picture in `steps` steps.

    The picture is binarised, because the network was trained on binary pixels and its bound is their likelihood.

    Args:
        manifest: of the model.
        picture: [28 28] uint8, white ink on black.
        seed: 0..2**53 - 1.
        steps: number of steps.
        deadline: on the engine's clock (`time.monotonic`), in seconds.
    """
    noise_rows = noise(seed, 0, steps, int(manifest.config["latent_size"]))[:, None]
    inputs: dict[str, Array] = {
        "picture": (picture > HALF_WHITE).astype(np.float32)[None],
        "noise": noise_rows,
        "condition": condition(None, steps)[:, None],
    }
    return Request(inputs, 1, steps, deadline)


@dataclass(frozen=True, slots=True)
class Drawing:
    """Pictures with their attention windows: one sample at every step, or all samples at one step."""

    frames: Pixels
    """Pictures, [F 28 28] uint8."""
    write_windows: Floats
    """Write windows, [F 5] float32, in the order of `PARAMETERS`."""
    read_windows: Floats | None
    """Read windows, [F 5] float32, in the order of `PARAMETERS`; None for generated drawings."""
    write_filters: int
    """Number of filters along a side of a write window."""
    read_filters: int
    """Number of filters along a side of a read window."""

    def only(self, frame: int) -> "Drawing":
        """Return a drawing that consists of a single frame."""
        one = slice(frame, frame + 1)
        return replace(
            self,
            frames=self.frames[one],
            write_windows=self.write_windows[one],
            read_windows=None if self.read_windows is None else self.read_windows[one],
        )

    def write_window(self, frame: int) -> dict[str, float]:
        """Return the write window of a frame as a mapping from `PARAMETERS`."""
        return _named(self.write_windows[frame])

    def read_window(self, frame: int) -> dict[str, float]:
        """Return the read window of a reconstruction's frame as a mapping from `PARAMETERS`."""
        assert self.read_windows is not None, "this is a bug: nothing was read"
        return _named(self.read_windows[frame])

    def enlarged(self, scale: int, *, with_attention: bool) -> Pixels:
        """Return the frames enlarged, [F H W], or [F H W 3] with write windows in red and read windows in green."""
        frames = enlarge(self.frames, scale)
        if not with_attention:
            return frames
        marked = as_rgb(frames)
        if self.read_windows is not None:
            _mark(marked, self.read_windows, self.read_filters, scale, GREEN)
        _mark(marked, self.write_windows, self.write_filters, scale, RED)
        return marked


def drawings(answered: Request, manifest: Manifest) -> list[Drawing]:
    """Return the samples of a request in order, as far as they are computed."""
    return [drawing(answered, row, manifest) for row in range(answered.rows)]


def drawing(answered: Request, row: int, manifest: Manifest) -> Drawing:
    """Return one sample of a request at every step; frames beyond the computed steps are undefined."""
    return _drawing(answered, np.s_[:, row], manifest)


def moment(answered: Request, step: int, manifest: Manifest) -> Drawing:
    """Return all samples of a request at one step, in order."""
    return _drawing(answered, np.s_[step], manifest)


def bound_nats(answered: Request) -> float:
    """Return the variational bound of a finished reconstruction in nats: final pixel loss plus all latent losses."""
    assert not answered.keeps_last_step, "this is a bug: every step has a latent loss"
    pixels, latent = answered.outputs["losses"][:, 0].T
    return float(pixels[-1] + latent.sum())


def _side_by_side(samples: list[Floats]) -> Floats:
    """Stack the samples' arrays [steps N] as [steps samples N]; a single one is not copied."""
    return samples[0][:, None] if len(samples) == 1 else np.stack(samples, axis=1)


def _drawing(answered: Request, part: Any, manifest: Manifest) -> Drawing:
    """Return the drawing of the outputs [steps rows ...] that the index `part` selects."""
    outputs = answered.outputs
    read_windows = outputs.get("read_windows")
    return Drawing(
        outputs["pictures"][part],
        outputs["write_windows"][part],
        None if read_windows is None else read_windows[part],
        int(manifest.config["write_filters"]),
        int(manifest.config["read_filters"]),
    )


def _mark(frames: Pixels, windows: Floats, filters: int, scale: int, colour: tuple[int, int, int]) -> None:
    g_X, g_Y, delta, sigma, _ = windows.T
    draw_windows(frames, g_X, g_Y, delta, sigma, N=filters, scale=scale, colour=colour)


def _named(window: Floats) -> dict[str, float]:
    return dict(zip(PARAMETERS, window.tolist(), strict=True))
