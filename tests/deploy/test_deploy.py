"""What is deployed agrees with the service: files that no other test reads, and that nothing else would keep true."""

import re
from pathlib import Path

import pytest

from service.metrics import Metrics
from service.server import FAREWELL_SECONDS
from service.settings import Settings
from service.termination import LINGER_SECONDS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "path", ["deploy/alerts.yml", "deploy/alerts.test.yml", "deploy/grafana/dashboards/glimpse.json"]
)
def test_metrics_that_are_watched_are_metrics_of_the_service(path: str) -> None:
    """Every metric that an alert or a panel names is one that the service exposes."""
    exposed = set(re.findall(r"^# TYPE (\w+)", Metrics().exposition().decode(), re.MULTILINE))

    watched = {
        re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"\bglimpse_\w+", (ROOT / path).read_text())
    }

    assert watched
    assert watched <= exposed


def test_compose_waits_longer_than_a_shutdown_takes() -> None:
    """The grace period is longer than the drain and the time that the server then gives to answers being sent."""
    grace = re.search(r"^ *stop_grace_period: (\d+)s$", (ROOT / "docker-compose.yml").read_text(), re.MULTILINE)

    assert grace is not None
    settings = Settings()
    longest = settings.drain_notice_seconds + settings.drain_seconds + 2 * LINGER_SECONDS + FAREWELL_SECONDS
    assert int(grace[1]) > longest


def test_compose_passes_no_setting_on_that_it_could_not_honour() -> None:
    """Its grace period goes with the default of a drain."""
    passed_on = re.findall(r"^ *- (GLIMPSE_\w+)$", (ROOT / "docker-compose.yml").read_text(), re.MULTILINE)

    assert passed_on
    assert "GLIMPSE_DRAIN_SECONDS" not in passed_on
