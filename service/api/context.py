"""What the endpoints share: settings, models, admission, and threads."""

from dataclasses import dataclass

from service.api.admission import Admission
from service.api.catalogue import Catalogue
from service.api.threads import ThreadPool
from service.settings import Settings


@dataclass(frozen=True, slots=True)
class Context:
    """The objects that all endpoints share; created once, by `service.app`."""

    settings: Settings
    catalogue: Catalogue
    admission: Admission
    codecs: ThreadPool
    """Threads that decode and encode."""
    header_reader: ThreadPool
    """A single thread that reads the headers of files, so that a refusal need not wait for busy codecs."""
