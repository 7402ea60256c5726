"""An answer that is ready to be sent."""

from dataclasses import dataclass, field

import numpy as np
import orjson
from starlette.types import Send


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response body with its head."""

    body: bytes
    media_type: str
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    async def send(self, send: Send) -> None:
        """Send it as two ASGI messages."""
        await send({"type": "http.response.start", "status": self.status, "headers": self._head()})
        await send({"type": "http.response.body", "body": self.body})

    def _head(self) -> list[tuple[bytes, bytes]]:
        head = [
            (b"content-type", self.media_type.encode("latin-1")),
            (b"content-length", str(len(self.body)).encode("latin-1")),
        ]
        head += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in self.headers.items()]
        return head


def to_json(document: object) -> bytes:
    """A document as JSON; NumPy arrays become lists."""
    # orjson itself takes contiguous arrays alone, and asks `default` for all others.
    return orjson.dumps(document, default=np.ascontiguousarray, option=orjson.OPT_SERIALIZE_NUMPY)
