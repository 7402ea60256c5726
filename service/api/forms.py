"""Multipart forms: the files named `image` in a complete body."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from service.errors import InvalidParameter, UndecodableInput

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MEDIA_TYPE = "multipart/form-data"
FIELD = "image"
BOUNDARY = re.compile(rb"[ !#-\[\]-~]{1,70}")
"""Pattern of boundaries. More are accepted than in RFC 2046, 5.1.1: all characters that need no escape in quotes."""
MAX_TYPE_CHARACTERS = 1024
"""Longest content type that is parsed."""
MAX_OTHER_PARTS = 16
"""Maximum number of parts other than files named `image`; they are dropped."""


@dataclass(frozen=True, slots=True)
class Upload:
    """One uploaded file."""

    data: bytes
    content_type: str


def is_form(content_type: str) -> bool:
    """Return whether a body of this content type is a form."""
    return content_type.partition(";")[0].strip().lower() == MEDIA_TYPE


def files(body: bytes, content_type: str, most: int) -> list[Upload]:
    """Return the files of a form in their order, at most `most`.

    Raises:
        UndecodableInput: the form is malformed, cut off, or has too many other parts.
        InvalidParameter: it has too many files, or none.
    """
    form = _Form(most)
    try:
        parser = MultipartParser(_boundary(content_type), form.callbacks())
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise UndecodableInput(f"the multipart form is malformed: {error}") from error
    if not form.is_whole:
        raise UndecodableInput("the multipart form is cut off: its closing boundary is missing")
    if not form.uploads:
        raise InvalidParameter(FIELD, "must be a file in the form, with a file name or a content type; there is none")
    return form.uploads


class _Form:
    """Collects the files among the parts of a form; its methods are the parser's callbacks."""

    def __init__(self, most: int) -> None:
        self.uploads: list[Upload] = []
        self.is_whole = False
        self._most = most
        self._others = 0
        self._headers: dict[bytes, bytes] = {}
        self._name = self._value = b""
        self._is_wanted = False
        self._data: list[bytes] = []

    def callbacks(self) -> "MultipartCallbacks":
        """Return the callbacks by the parser's names."""
        return {
            "on_part_begin": self._on_part_begin,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": self._on_part_data,
            "on_part_end": self._on_part_end,
            "on_end": self._on_end,
        }

    def _on_part_begin(self) -> None:
        self._headers = {}
        self._data = []

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name = self._value = b""

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        if b"name" not in options:
            raise UndecodableInput("a part of the multipart form has no name")  # RFC 7578, 4.2
        # A file may come without its name (RFC 7578, 4.2); a text field has neither a name nor, usually, a type.
        is_file = b"filename" in options or b"content-type" in self._headers
        self._is_wanted = is_file and options[b"name"] == FIELD.encode()
        if self._is_wanted and len(self.uploads) == self._most:
            raise InvalidParameter(FIELD, f"must be at most {self._most} files")
        self._others += not self._is_wanted
        if self._others > MAX_OTHER_PARTS:
            raise UndecodableInput(
                f"the multipart form has more than {MAX_OTHER_PARTS} parts other than files named {FIELD}"
            )

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_wanted:
            self._data.append(data[start:end])

    def _on_part_end(self) -> None:
        if self._is_wanted:
            content_type = self._headers.get(b"content-type", b"").decode("latin-1")
            self.uploads.append(Upload(b"".join(self._data), content_type))

    def _on_end(self) -> None:
        self.is_whole = True


def _boundary(content_type: str) -> str:
    if len(content_type) > MAX_TYPE_CHARACTERS:
        raise UndecodableInput(f"the content type has {len(content_type)} characters; at most {MAX_TYPE_CHARACTERS}")
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not BOUNDARY.fullmatch(boundary):
        raise UndecodableInput(f"the multipart form's content type must name a boundary, not {boundary!r}")
    return boundary.decode("latin-1")
