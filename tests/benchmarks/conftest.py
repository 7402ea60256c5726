"""A server to point the load generator at."""

from collections.abc import Iterator

import pytest

from tests.benchmarks.tiny_server import TinyServer


@pytest.fixture
def tiny_server() -> Iterator[TinyServer]:
    """A server that answers at once."""
    with TinyServer() as server:
        yield server
