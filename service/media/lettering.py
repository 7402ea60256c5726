"""Text as pixels, in the typeface that Pillow carries with it."""

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from service.media.picture import Pixels


@lru_cache(maxsize=128)
def lettering(text: str, size: int) -> Pixels:
    """Return how much ink covers each pixel of a line of text, [H W]; the height depends on `size` alone."""
    font = ImageFont.load_default(size)
    width = max(1, round(font.getlength(text)) + 1)
    page = Image.new("L", (width, round(1.25 * size)))
    ImageDraw.Draw(page).text((0, size), text, fill=255, font=font, anchor="ls")
    return np.asarray(page)
