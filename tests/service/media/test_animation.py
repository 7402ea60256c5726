"""Animation: every frame, its colours and its time, as Pillow reads them back."""

import io
import weakref
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from PIL import Image

from service.media.animation import AnimationFormat, animate
from service.media.picture import Pixels, as_rgb

EVERY_FORMAT = pytest.mark.parametrize("animation_format", AnimationFormat)


def played(data: bytes) -> tuple[Pixels, list[float]]:
    """Return the frames [T H W 3] and the milliseconds each is shown."""
    image = Image.open(io.BytesIO(data))
    frames, durations = [], []
    for t in range(getattr(image, "n_frames", 1)):
        image.seek(t)
        image.load()
        frames.append(np.asarray(image.convert("RGB")))
        durations.append(float(image.info["duration"]))
    return np.stack(frames), durations


def fading(count: int) -> Pixels:
    """Return grey frames that change in part: a ramp that gets lighter on the left."""
    frames = np.tile(np.arange(0, 250, 10, dtype=np.uint8), (count, 20, 1))
    frames[:, :, :8] = np.arange(count, dtype=np.uint8)[:, None, None] * 7
    return frames


@EVERY_FORMAT
def test_every_frame_is_played(animation_format: AnimationFormat) -> None:
    """What is read back is what was written; GIF rounds to 252 greys."""
    frames = fading(12)

    shown, _ = played(animate(frames, 12, animation_format))

    tolerance = 1 if animation_format is AnimationFormat.GIF else 0
    np.testing.assert_allclose(shown.astype(int), as_rgb(frames).astype(int), atol=tolerance)


@EVERY_FORMAT
def test_marks_keep_their_colours(animation_format: AnimationFormat) -> None:
    """Pure red, green and blue come back exactly, and black and white do."""
    frames = as_rgb(fading(3))
    colours = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0), (255, 255, 255)], np.uint8)
    frames[:, 0, :5] = colours
    frames[1, 0, :5] = colours[::-1]

    shown, _ = played(animate(frames, 12, animation_format))

    np.testing.assert_array_equal(shown[:, 0, :5], frames[:, 0, :5])


@pytest.mark.parametrize("animation_format", [AnimationFormat.GIF, AnimationFormat.APNG])
def test_frames_that_are_equal_are_still_counted(animation_format: AnimationFormat) -> None:
    """Eight steps give eight frames, even if the last ones change nothing."""
    frames = np.repeat(fading(2), 4, axis=0)

    shown, durations = played(animate(frames, 10, animation_format))

    assert len(shown) == len(durations) == 8
    np.testing.assert_allclose(shown.astype(int), as_rgb(frames).astype(int), atol=1)


@EVERY_FORMAT
def test_last_frame_rests_for_a_second_more(animation_format: AnimationFormat) -> None:
    """At ten frames per second, each takes a tenth of a second, and the last 1.1 seconds."""
    _, durations = played(animate(fading(4), 10, animation_format))

    assert durations == pytest.approx([100, 100, 100, 1100])


@EVERY_FORMAT
@pytest.mark.parametrize("fps", [1, 12, 60])
def test_rounding_of_times_does_not_add_up(animation_format: AnimationFormat, fps: int) -> None:
    """A GIF counts in hundredths of a second; thirty frames last as long as they should all the same.

    But none is shown for less than two, which browsers take for a mistake.
    """
    _, durations = played(animate(fading(30), fps, animation_format))

    shown_fps = min(fps, 50) if animation_format is AnimationFormat.GIF else fps
    assert sum(durations) == pytest.approx(30 * 1000 / shown_fps + 1000, abs=6)


@EVERY_FORMAT
def test_same_frames_give_the_same_bytes(animation_format: AnimationFormat) -> None:
    """The file depends only on the frames."""
    assert animate(fading(5), 12, animation_format) == animate(fading(5), 12, animation_format)


@EVERY_FORMAT
def test_animation_loops_for_ever(animation_format: AnimationFormat) -> None:
    """A loop count of zero means for ever."""
    assert Image.open(io.BytesIO(animate(fading(3), 12, animation_format))).info["loop"] == 0


@EVERY_FORMAT
def test_single_frame_is_a_picture(animation_format: AnimationFormat) -> None:
    """A single frame is encoded like any other animation."""
    frames = fading(1)

    image = Image.open(io.BytesIO(animate(frames, 12, animation_format)))

    np.testing.assert_allclose(np.asarray(image.convert("L")).astype(int), frames[0], atol=1)


@pytest.mark.parametrize("animation_format", [AnimationFormat.GIF, AnimationFormat.APNG])
@pytest.mark.parametrize("in_colour", [False, True])
def test_frames_are_taken_one_by_one(animation_format: AnimationFormat, *, in_colour: bool) -> None:
    """Frames are consumed lazily: only the newest is kept in memory, and the file is the same."""
    frames = as_rgb(fading(12)) if in_colour else fading(12)
    made: list[weakref.ref[Pixels]] = []

    def newly_made() -> Iterator[Pixels]:
        for original in frames:
            assert sum(frame() is not None for frame in made) <= 1
            frame = original.copy()
            made.append(weakref.ref(frame))
            yield frame
            del frame

    assert animate(newly_made(), 12, animation_format) == animate(frames, 12, animation_format)


@pytest.mark.parametrize("in_colour", [False, True])
def test_animated_png_is_a_still_picture_to_whoever_knows_no_animations(*, in_colour: bool) -> None:
    """OpenCV reads the first frame, and its checksums are correct."""
    frames = as_rgb(fading(3)) if in_colour else fading(3)

    still = cv2.imdecode(np.frombuffer(animate(frames, 12, AnimationFormat.APNG), np.uint8), cv2.IMREAD_UNCHANGED)

    np.testing.assert_array_equal(still, frames[0])


@EVERY_FORMAT
def test_content_type_names_the_format(animation_format: AnimationFormat) -> None:
    """The content type is the registered media type."""
    assert (
        animation_format.content_type
        == {
            AnimationFormat.GIF: "image/gif",
            AnimationFormat.APNG: "image/apng",
            AnimationFormat.WEBP: "image/webp",
        }[animation_format]
    )
