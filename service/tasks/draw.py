"""Drawing: a seed in, pictures step by step out; or a picture in, and how DRAW sees and redraws it."""

import threading
from dataclasses import dataclass, replace
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
"""Streams of a sample's random numbers: parts of the counter's space that never overlap."""
MIN_STEPS = 8
"""Fewest steps that the network was trained for; they are the pace 1."""
HALF_WHITE = 127
PARAMETERS = ("gx", "gy", "delta", "sigma", "gamma")
"""Parameters of an attention window, in the order of the graph's outputs; lengths are in pixels of the canvas."""


def noise(seed: int, sample: int, steps: int, size: int) -> Floats:
    """Standard normal numbers, [steps size]: a function of (seed, sample, step), whatever else is asked for.

    The counter-based generator's key is (seed, sample) and its counter runs with the steps, so that a longer drawing
    begins with the numbers of a shorter one.
    """
    return _generator(seed, sample, NOISE_STREAM).standard_normal((steps, size), dtype=np.float32)


def drawn_digit(seed: int, sample: int) -> int:
    """The class of a sample for which none was asked: as likely as any other, and a function of (seed, sample)."""
    return int(_generator(seed, sample, DIGIT_STREAM).integers(CLASSES))


def digit_to_draw(asked: int | None, seed: int, sample: int) -> int:
    """The class that a sample is to have: the one that was asked for, or else the drawn one."""
    return drawn_digit(seed, sample) if asked is None else asked


class _Thread(threading.local):
    """A generator for each thread, and the state that it is reset to for every use.

    Making one costs as much as drawing the numbers of many steps: it asks the system for entropy, even with a key.
    """

    def __init__(self) -> None:
        self.generator = np.random.Generator(np.random.Philox())
        self.state: Any = np.random.Philox(key=0, counter=0).state


_thread = _Thread()


def _generator(seed: int, sample: int, stream: int) -> np.random.Generator:
    """Return the thread's generator at the beginning of a stream; the next call moves it to another one."""
    inner = _thread.state["state"]
    inner["key"][:] = seed, sample
    inner["counter"][:] = 0, 0, 0, stream
    _thread.generator.bit_generator.state = _thread.state
    return _thread.generator


def condition(digit: int | None, steps: int) -> Floats:
    """Return the network's condition at every step, [steps 13]: the class, or that it is withheld, and the clock."""
    conditions = np.zeros((steps, CLASSES + 3), np.float32)
    conditions[:, NO_CLASS if digit is None else digit] = 1
    conditions[:, -2] = np.arange(steps, dtype=np.float32) / steps
    conditions[:, -1] = MIN_STEPS / steps
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
    """A request for `count` drawings of `steps` steps."""
    size = int(manifest.config["latent_size"])
    noise_rows = _side_by_side([noise(seed, sample, steps, size) for sample in range(count)])
    if temperature != 1:
        noise_rows *= np.float32(temperature)
    # The picture of any digit is drawn as p(digit) p(picture | digit): the network draws better if it knows which.
    conditions = _side_by_side([condition(digit_to_draw(digit, seed, sample), steps) for sample in range(count)])
    return Request({"noise": noise_rows, "condition": conditions}, count, steps, deadline)


def reconstruction(manifest: Manifest, *, picture: Pixels, seed: int, steps: int, deadline: float) -> Request:
    """A request to look at a picture (white ink on black, [28 28]) and redraw it in `steps` steps.

    The network was trained on pictures of black and white pixels, and its bound is a likelihood of such: greys would be
    paid for with a bit of noise each. What is at least half white counts as white.
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
    """Pictures and where the network looked: those of a sample, step by step, or those of all samples at a step."""

    frames: Pixels
    """The pictures, [F 28 28]."""
    write_windows: Floats
    """[F 5], in the order of `PARAMETERS`."""
    read_windows: Floats | None
    """Likewise; None where nothing was read."""
    write_filters: int
    read_filters: int

    def only(self, frame: int) -> "Drawing":
        """A single frame, as a drawing of one."""
        one = slice(frame, frame + 1)
        return replace(
            self,
            frames=self.frames[one],
            write_windows=self.write_windows[one],
            read_windows=None if self.read_windows is None else self.read_windows[one],
        )

    def write_window(self, frame: int) -> dict[str, float]:
        """The write window of a frame, by the names of its parameters."""
        return _named(self.write_windows[frame])

    def read_window(self, frame: int) -> dict[str, float]:
        """The read window of a frame of a reconstruction, likewise."""
        assert self.read_windows is not None, "this is a bug: nothing was read"
        return _named(self.read_windows[frame])

    def enlarged(self, scale: int, *, with_attention: bool) -> Pixels:
        """The frames, enlarged: [F H W], or [F H W 3] with the write window in red and the read window in green."""
        frames = enlarge(self.frames, scale)
        if not with_attention:
            return frames
        marked = as_rgb(frames)
        if self.read_windows is not None:
            _mark(marked, self.read_windows, self.read_filters, scale, GREEN)
        _mark(marked, self.write_windows, self.write_filters, scale, RED)
        return marked


def drawings(answered: Request, manifest: Manifest) -> list[Drawing]:
    """The samples of a request, in their order; complete once the request is."""
    return [drawing(answered, row, manifest) for row in range(answered.rows)]


def drawing(answered: Request, row: int, manifest: Manifest) -> Drawing:
    """One sample of a request, step by step; what is computed of it so far is there."""
    return _drawing(answered, np.s_[:, row], manifest)


def moment(answered: Request, step: int, manifest: Manifest) -> Drawing:
    """All samples of a request at a step, in their order."""
    return _drawing(answered, np.s_[step], manifest)


def bound_nats(answered: Request) -> float:
    """The variational bound of a reconstruction, in nats."""
    pixels, latent = answered.outputs["losses"][:, 0].T
    return float(pixels[-1] + latent.sum())


def _side_by_side(samples: list[Floats]) -> Floats:
    """What each sample is given, [steps N], as [steps samples N]; a lone one's without a copy."""
    return samples[0][:, None] if len(samples) == 1 else np.stack(samples, axis=1)


def _drawing(answered: Request, part: Any, manifest: Manifest) -> Drawing:
    """What a part of the steps and rows shows."""
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
