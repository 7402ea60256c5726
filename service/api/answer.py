"""Complete responses, made from documents, arrays and pictures."""

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
    """A complete response: status, headers and body."""

    body: bytes
    media_type: str
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    def head(self) -> list[tuple[bytes, bytes]]:
        """Return the headers as ASGI wants them."""
        head = [
            (b"content-type", self.media_type.encode("latin-1")),
            (b"content-length", str(len(self.body)).encode("latin-1")),
        ]
        head += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in self.headers.items()]
        return head


def json_answer(document: object, headers: dict[str, str] | None = None) -> Answer:
    """Return a document as a JSON response; NumPy arrays become lists."""
    return Answer(to_json(document), "application/json", headers=headers or {})


def npz_answer(arrays: Mapping[str, Array], headers: dict[str, str] | None = None) -> Answer:
    """Return named arrays as an NPZ response, which `numpy.load` reads."""
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return Answer(file.getvalue(), NPZ, headers=headers or {})


def picture_answer(
    image: Pixels, picture_format: PictureFormat = PictureFormat.PNG, headers: dict[str, str] | None = None
) -> Answer:
    """Return a picture, [H W] or [H W 3], as a response."""
    return Answer(encode(image, picture_format), picture_format.content_type, headers=headers or {})


def to_json(document: object) -> bytes:
    """Encode a document as JSON; NumPy arrays become lists."""
    # orjson serialises only contiguous arrays itself, and passes all others to `default`.
    return orjson.dumps(document, default=np.ascontiguousarray, option=orjson.OPT_SERIALIZE_NUMPY)


def base64_png(image: Pixels) -> str:
    """Encode a picture, [H W] or [H W 3], as PNG in base64, to be embedded in a document."""
    return base64.b64encode(encode(image)).decode()
