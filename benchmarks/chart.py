"""Latency against load as an SVG: one colour per workload, the median solid, the 99th percentile dashed.

Load is a share of the workload's own throughput, so that all workloads fit on one axis. The latency axis is
logarithmic.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 130, 30, 50
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
"""Colours of Okabe and Ito, which colour-blind people can distinguish, too."""
INK, GRID = "#333333", "#dddddd"


@dataclass(frozen=True, slots=True)
class Point:
    """Latency at one load."""

    load: float
    """Load as a share of the throughput."""
    median: float
    """Median latency in seconds."""
    p99: float
    """99th percentile of the latency in seconds; infinite if more than 1 % of the requests failed."""


def latency_chart(lines: Mapping[str, Sequence[Point]]) -> str:
    """Return the SVG of all workloads' points, by name; infinite latencies run out of the frame."""
    finite = [v for points in lines.values() for p in points for v in (p.median, p.p99) if math.isfinite(v)]
    low = math.floor(math.log10(min(finite, default=1e-3)))
    high = max(low + 1, math.ceil(math.log10(max(finite, default=1e-1))))
    max_load = max((p.load for points in lines.values() for p in points), default=1.0)

    def x(load: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * load / max_load

    def y(seconds: float) -> float:
        # An infinite latency is above the frame, so that the line runs out of it.
        share = (min(math.log10(seconds), high + 1) - low) / (high - low) if seconds > 0 else 0.0
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="12" fill="{INK}">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<clipPath id="frame"><rect x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT - RIGHT}" '
        f'height="{HEIGHT - TOP - BOTTOM}"/></clipPath>',
    ]
    for power in range(low, high + 1):
        parts.append(_line(LEFT, y(10.0**power), WIDTH - RIGHT, y(10.0**power), GRID))
        parts.append(_text(LEFT - 8, y(10.0**power) + 4, f"{10.0 ** (power + 3):g} ms", "end"))
    for tenth in range(0, round(max_load * 10) + 1, 2):
        parts.append(_line(x(tenth / 10), TOP, x(tenth / 10), HEIGHT - BOTTOM, GRID))
        parts.append(_text(x(tenth / 10), HEIGHT - BOTTOM + 18, f"{tenth * 10} %", "middle"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, "load, as a share of the throughput", "middle"))
    for index, (name, points) in enumerate(lines.items()):
        colour = COLOURS[index % len(COLOURS)]
        parts.append(_curve([(x(p.load), y(p.median)) for p in points], colour, ""))
        parts.append(_curve([(x(p.load), y(p.p99)) for p in points], colour, ' stroke-dasharray="5 4"'))
        for row, (label, dashes) in enumerate(((f"{name} p50", ""), (f"{name} p99", ' stroke-dasharray="5 4"'))):
            at = TOP + 12 + 20 * (2 * index + row)
            parts.append(_line(WIDTH - RIGHT + 12, at - 4, WIDTH - RIGHT + 40, at - 4, colour, dashes, 2))
            parts.append(_text(WIDTH - RIGHT + 46, at, label, "start"))
    return "\n".join([*parts, "</svg>", ""])


def _line(x0: float, y0: float, x1: float, y1: float, colour: str, extra: str = "", width: int = 1) -> str:
    return f'<path d="M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}" stroke="{colour}" stroke-width="{width}"{extra}/>'


def _curve(points: Sequence[tuple[float, float]], colour: str, extra: str) -> str:
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2" clip-path="url(#frame)"{extra}/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
