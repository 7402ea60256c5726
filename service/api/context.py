"""What the endpoints share: settings, models, admission, and threads."""

from dataclasses import dataclass

from service.api.admission import Admission
from service.api.catalogue import Catalogue
from service.api.threads import ThreadPool
from service.settings import Settings


@dataclass(frozen=True, slots=True)
class Context:
    """Made once, by the composition root."""

    settings: Settings
    catalogue: Catalogue
    admission: Admission
    codecs: ThreadPool
    """For decoding and encoding."""
    header_reader: ThreadPool
    """One thread that reads the headers of files, so that a refusal need not wait for the codecs."""
