"""The report has every measurement, and its environment."""

import math
from xml.etree import ElementTree as ET

import pytest

from benchmarks import report
from benchmarks.chart import Point, latency_chart
from benchmarks.report import Comparison, Results
from benchmarks.scenarios import Overload, Run, ServerSide, Stretch
from benchmarks.sequences import Recurrent
from benchmarks.stn_limit import StnLimit
from benchmarks.timeline import UNSENT, Record, Timeline

CASES = ((report.PLAIN, 1), (report.PLAIN, 64), (report.WHOLE, 64))


def timeline(milliseconds: float, number: int = 100, tag: str = "8", refused: int = 0) -> Timeline:
    """Requests that were sent a millisecond late."""
    answers: list[Record] = [(0.0, 0.001, milliseconds / 1e3, 200, tag)] * number
    return Timeline.of([*answers, *[(0.0, 0.001, 0.004, 429, tag)] * refused], seconds=1.0)


def rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]


def test_requests_are_shown_in_all_and_by_kind() -> None:
    """Rates, percentiles, and what went wrong."""
    both = Timeline.joined([timeline(5.0), timeline(20.0, tag="64", refused=100)])

    found = rows(report.requests_table([Run("draw", 64, both)]))[2:]

    assert found == [
        ["draw", "64", "150", "100", "20.00", "never", "never", "never", "429: 100"],
        ["- 8", "", "50", "50", "5.00", "5.00", "5.00", "5.00", "none"],
        ["- 64", "", "100", "50", "20.00", "never", "never", "never", "429: 100"],
    ]


def test_promises_are_ratios_of_what_was_measured() -> None:
    """Each beside its aim."""
    whole = Timeline.joined([timeline(60.0, 50), timeline(60.0, 50, "64")])
    engine = Timeline.joined([timeline(15.0, 100), timeline(80.0, 100, "64")])
    results = Results(
        {},
        start=report.Start(1.25, 150e6),
        comparisons=[
            Comparison("stn", report.PLAIN, 1, timeline(1.0), timeline(1.5)),
            Comparison("stn", report.PLAIN, 64, timeline(9.0, 90), timeline(9.0, 60)),
            Comparison("draw", report.WHOLE, 64, timeline(9.0, 90), timeline(36.0, 45)),
        ],
        stn_limit=StnLimit(1000.0, 2, 1e-5, 2e-5, 3e-5),
        stn_rate=800.0,
        recurrent={"draw": Recurrent(timeline(10.0, 125), whole, engine)},
        overloads={"draw": Overload(200.0, timeline(9.0, 190, refused=50), 0.25, 1e8, 2e8)},
    )

    promises = report.markdown(results).partition("## The promises")[2].partition("##")[0]
    measured = [row[1] for row in rows(promises)[2:]]
    assert measured == [
        "1.2 s",
        "150 MB",
        *("1.50", "1.50", "2.00", "0.25"),
        "80%",
        *("2.00", "0.25", "80%"),
        *("4.00 ms", "95%", "250.00 ms"),
    ]


def test_overload_is_shown_with_what_its_client_adds() -> None:
    """Refusals are counted from when they were due and from when they were sent; what was never sent is not late."""
    flood = Timeline.joined([timeline(9.0, 190, refused=50), Timeline.of([(0.0, 0.9, 0.9, UNSENT, "8")] * 10, 0.0)])

    found = {row[0]: row[1] for row in rows(report.overload_table({"draw": Overload(200.0, flood, 0.25, 1e8, 2e8)}))}

    assert found["Throughput before, /s"] == "200"
    assert found["Asked for, /s"] == "250"
    assert found["Good answers, /s"] == "190"
    assert found["Answers by status"] == "unsent: 10, 200: 190, 429: 50"
    assert found["Sent late, for want of a free connection, p50 / p99 ms"] == "1.00 / 1.00"
    assert found["Refused, from when due, p50 / p99 ms"] == "4.00 / 4.00"
    assert found["Refused, from when sent, p50 / p99 ms"] == "3.00 / 3.00"
    assert found["Normal again after, ms"] == "250.00"
    assert found["Memory before / after, MB"] == "100 / 200"


def test_long_load_is_shown_part_by_part() -> None:
    """Each row has the throughput of a part, and the memory in use at its end."""
    parts = [Stretch(timeline(5.0), 100e6), Stretch(timeline(7.0, refused=100), 104e6)]

    assert rows(report.soak_table(parts))[2:] == [
        ["1", "100", "5.00", "none", "100"],
        ["2", "100", "never", "429: 100", "104"],
    ]


def test_report_survives_what_was_never_answered() -> None:
    """A ratio to zero is shown as a dash; the rest of the report is complete."""
    nothing = Timeline.of([], seconds=1.0)
    comparisons = [Comparison("draw", other, n, timeline(9.0), nothing) for other, n in CASES]

    promises = report.markdown(Results({}, comparisons=comparisons)).partition("## The promises")[2].partition("##")[0]

    assert {row[1] for row in rows(promises)[2:]} == {"-", "nan"}


def test_report_of_nothing_is_its_environment() -> None:
    """What was not measured is not mentioned."""
    text = report.markdown(Results(report.environment()))

    assert [line for line in text.splitlines() if line.startswith("#")] == ["# Benchmarks"]
    assert {row[0] for row in rows(text)} >= {"Date", "Command", "Glimpse", "Machine", "Packages", "System"}
    assert "Python 3." in text
    assert "unknown" not in text.split("Packages")[1]


def test_service_counts_are_shown_beside_the_clients() -> None:
    """So that a difference is seen."""
    side = ServerSide(0.001, 0.002, 0.003, 0.004, 8.0, 0.25, 99)

    found = rows(report.server_table([Run("stn", 64, timeline(1.0), side)]))[2]

    assert found == ["stn", "1.000", "2.000", "3.000", "4.000", "8.0", "25.0%", "99 / 100", "0"]


def test_load_of_a_point_is_a_share_of_the_sweeps_largest() -> None:
    """Latencies stay in seconds."""
    runs = [Run("stn", 512, timeline(1.0, 50)), Run("stn", 512, timeline(3.0, 200))]

    assert report.points(runs) == [Point(0.25, 0.001, 0.001), Point(1.0, 0.003, 0.003)]


@pytest.mark.parametrize("lines", [{}, {"draw": [Point(0.1, 0.002, 0.004), Point(1.0, 0.02, math.inf)]}])
def test_chart_is_a_picture_with_two_lines_a_workload(lines: dict[str, list[Point]]) -> None:
    """Well-formed, also where a request was never answered."""
    root = ET.fromstring(latency_chart(lines))

    curves = [path.get("d", "") for path in root.iter() if path.get("clip-path")]
    assert len(curves) == 2 * len(lines)
    assert not any("inf" in curve or "nan" in curve for curve in curves)
