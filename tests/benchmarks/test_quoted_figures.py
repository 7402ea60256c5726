"""The pages that quote the benchmarks say what `docs/benchmarks.md` says."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README, PERFORMANCE = "README.md", "docs/performance.md"

PROMISES = {
    "over": "{}, 64 connections: throughput over whole-request batching",
    "short": "{}, 64 connections: shortest's median over whole-request batching's",
    "engine_over": "{}, engine: throughput over whole-request batching",
    "engine_short": "{}, engine: shortest's median over whole-request batching's",
    "share": "{}, engine: share of the engine-free loop",
}
"""Promises that are made for DRAW and for the NTM."""
OTHER_PROMISES = {
    "plain": "STN, 64 connections: throughput over plain FastAPI's",
    "plain_alone": "STN, 1 connection: plain FastAPI's median over ours",
    "limit": "STN, 64 connections: share of the limit without HTTP",
    "sheets_kept": "Overload, sheets: good answers, share of the throughput",
    "draw_kept": "Overload, draw: good answers, share of the throughput",
    "start": "Start to ready",
    "memory": "Memory at rest",
}
QUOTES = {
    README: [
        "over whole-request batching | {draw_over}, {ntm_over}; without HTTP {draw_engine_over}, {ntm_engine_over} |",
        "median of 8 steps over whole-request batching's | {draw_short}, {ntm_short} |",
        "share of a loop without an engine | {draw_share}, {ntm_share};",
        "FastAPI's median over ours at one | {plain}; {plain_alone} |",
        "share of what the cores do without HTTP | {limit} |",
        "throughput kept | {sheets_kept}; {draw_kept} |",
        "start to ready; memory at rest | {start}; {memory} |",
    ],
    PERFORMANCE: [
        "| throughput over whole-request batching | {draw_over} | {ntm_over} |",
        "| 8 steps: median over whole-request batching's | {draw_short} | {ntm_short} |",
        "HTTP: throughput over whole-request batching | {draw_engine_over} | {ntm_engine_over} |",
        "HTTP: 8 steps, median over whole-request batching's | {draw_engine_short} | {ntm_engine_short} |",
        "HTTP: share of the engine-free loop | {draw_share} | {ntm_share} |",
        "ready after {start}",
        "take {memory} at rest",
    ],
}


@pytest.mark.parametrize("page", QUOTES)
@pytest.mark.parametrize("workload", ["draw", "ntm"])
def test_rates_and_medians_beside_whole_requests(workload: str, page: str) -> None:
    """The tables of DRAW and the NTM have what was measured in turns."""
    ours, theirs = by_steps(workload), by_steps(f"{workload}, whole requests")
    assert (
        f"| {workload.upper()} | {ours['all'][0]:,.0f} | {ours['8'][1]:.1f} ms | {ours['64'][1]:.0f} ms "
        f"| {theirs['all'][0]:,.0f}/s, {theirs['all'][1]:.0f} ms whatever the length |"
    ) in text(page)


@pytest.mark.parametrize(("page", "quote"), [(page, quote) for page, quotes in QUOTES.items() for quote in quotes])
def test_promises(page: str, quote: str) -> None:
    """What is said of a promise is what was measured."""
    names = {
        f"{model.lower()}_{key}": name.format(model) for key, name in PROMISES.items() for model in ("DRAW", "NTM")
    }
    found = {what: measured.replace("%", " %") for what, measured, _ in rows("The promises")}
    assert quote.format(**{key: found[name] for key, name in (names | OTHER_PROMISES).items()}) in text(page)


def by_steps(name: str) -> dict[str, tuple[float, float]]:
    """Return the answers per second and the median in milliseconds at 64 connections, of `all` and of each length."""
    found: dict[str, tuple[float, float]] = {}
    for what, connections, _, rate, median, *_ in rows("Beside others over HTTP"):
        if (what, connections) == (name, "64"):
            found["all"] = float(rate), float(median)
        elif found and what.startswith("- "):
            found[what.removeprefix("- ")] = float(rate), float(median)
        elif found:
            break
    return found


def rows(section: str) -> Iterator[list[str]]:
    """Return the cells of every row of the table in a section of the benchmarks."""
    body = text("docs/benchmarks.md").split(f"\n## {section}\n")[1].split("\n## ")[0]
    for line in re.findall(r"^\| (?!:?-+:)(.+) \|$", body, re.MULTILINE):
        yield line.split(" | ")


def text(page: str) -> str:
    """Return a page's text."""
    return (ROOT / page).read_text()
