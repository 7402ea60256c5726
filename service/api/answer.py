"""An answer that is ready to be sent, and how documents, arrays and pictures become one."""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import orjson

from export.manifest import Array
from service.api.negotiation import NPZ
from service.media.encoding import PictureFormat, encode
from service.media.picture import Pixels


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response body with its head."""

    body: bytes
    media_type: str
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    def head(self) -> list[tuple[bytes, bytes]]:
        """Its headers."""
        head = [
            (b"content-type", self.media_type.encode("latin-1")),
            (b"content-length", str(len(self.body)).encode("latin-1")),
        ]
        head += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in self.headers.items()]
        return head


def json_answer(document: object, headers: dict[str, str] | None = None) -> Answer:
    """A document as JSON; NumPy arrays become lists."""
    return Answer(to_json(document), "application/json", headers=headers or {})


def npz_answer(arrays: Mapping[str, Array], headers: dict[str, str] | None = None) -> Answer:
    """Arrays by name, as `numpy.load` reads them."""
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return Answer(file.getvalue(), NPZ, headers=headers or {})


def picture_answer(
    image: Pixels, picture_format: PictureFormat = PictureFormat.PNG, headers: dict[str, str] | None = None
) -> Answer:
    """A picture, [H W] or [H W 3]."""
    return Answer(encode(image, picture_format), picture_format.content_type, headers=headers or {})


def to_json(document: object) -> bytes:
    """A document as JSON; NumPy arrays become lists."""
    # orjson itself takes contiguous arrays alone, and asks `default` for all others.
    return orjson.dumps(document, default=np.ascontiguousarray, option=orjson.OPT_SERIALIZE_NUMPY)


def base64_png(image: Pixels) -> str:
    """A picture, [H W] or [H W 3], as a PNG file within a document."""
    return base64.b64encode(encode(image)).decode()
