"""Make the README's pictures with a running service, as a client.

Run `make serve` in one terminal and `make pictures` in another. The digits come from MNIST (`GLIMPSE_DATA`).
"""

import io
import os
import urllib.request
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from models import mnist
from models.stn.distortion import Clutter, RotationScaleTranslation
from models.stn.photograph import Photograph

URL = os.environ.get("GLIMPSE_URL", "http://127.0.0.1:8000")
DATA = Path(os.environ.get("GLIMPSE_DATA", "~/.cache/glimpse")).expanduser()
PICTURES = Path(__file__).parent / "pictures"
DIGITS = (7, 15, 61)
"""Indices of the test digits shown, one for each distortion."""


def fetch(path: str, body: bytes | None = None, content_type: str = "image/png") -> bytes:
    """Return the body of the service's response to a GET, or to a POST of `body`."""
    request = urllib.request.Request(f"{URL}{path}", body, {"Content-Type": content_type} if body else {})  # noqa: S310
    with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310 - the URL is the caller's
        content: bytes = response.read()
    return content


def png(picture: np.ndarray) -> bytes:
    """Encode grey levels 0..1 as a PNG."""
    file = io.BytesIO()
    Image.fromarray(np.uint8(np.round(picture * 255))).save(file, "PNG")
    return file.getvalue()


def stacked(pictures: list[Image.Image]) -> Image.Image:
    """Stack pictures vertically on white."""
    page = Image.new("RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)), "white")
    top = 0
    for picture in pictures:
        page.paste(picture, (0, top))
        top += picture.height
    return page


def main() -> None:
    """Write `stn.png`, `draw.png` and `ntm.png`."""
    PICTURES.mkdir(exist_ok=True)
    digits = torch.tensor(mnist.load(DATA, mnist.Split.TEST).images[:256]).unsqueeze(1) / 255
    strips = []
    for distortion, digit in zip(
        (Photograph(shorter_side=(320, 320)), Clutter(), RotationScaleTranslation()), DIGITS, strict=True
    ):
        distorted = distortion(digits, torch.Generator().manual_seed(4)).pictures[digit, 0].numpy()
        strip = fetch("/stn/rectify?view=strip&size=256", png(distorted))
        strips.append(Image.open(io.BytesIO(strip)).convert("RGB"))
    stacked(strips).save(PICTURES / "stn.png", optimize=True)
    film = fetch("/draw/generate?format=png&steps=16&count=4&seed=7&scale=3")
    (PICTURES / "draw.png").write_bytes(film)
    (PICTURES / "ntm.png").write_bytes(fetch("/ntm/copy?format=png&length=40&seed=3"))


if __name__ == "__main__":
    main()
