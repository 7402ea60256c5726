"""Renders text in Pillow's built-in typeface."""

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from service.media.picture import Pixels


@lru_cache(maxsize=128)
def lettering(text: str, size: int) -> Pixels:
    """Render a line of text as ink coverage, [H W] uint8, 0..255; the height depends only on `size`, in pixels."""
    font = ImageFont.load_default(size)
    width = max(1, round(font.getlength(text)) + 1)
    page = Image.new("L", (width, round(1.25 * size)))
    ImageDraw.Draw(page).text((0, size), text, fill=255, font=font, anchor="ls")
    return np.asarray(page)
