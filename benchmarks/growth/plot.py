"""Log-log plots as small SVG files that are legible on light and on dark, and the slope of a line in them."""

import math
from collections.abc import Mapping, Sequence
from html import escape

__all__ = ["Points", "plot", "slope"]

Points = Sequence[tuple[float, float]]
"""Sizes and what they cost, both above 0."""

WIDTH, HEIGHT = 700, 340
LEFT, RIGHT, TOP, BOTTOM = 56, 270, 34, 44
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #444 }
.title { font-weight: 600 }
.grid { stroke: #8884; fill: none }
.guide { stroke: #888; stroke-dasharray: 3 4; fill: none }
.line { fill: none; stroke-width: 2; stroke-linejoin: round }
.s0 { --c: #2474c4 } .s1 { --c: #c2571a } .s2 { --c: #1c8558 } .s3 { --c: #8e4fc0 } .s4 { --c: #a37800 }
.line { stroke: var(--c) } .point { fill: var(--c) } .label { fill: var(--c) }
@media (prefers-color-scheme: dark) {
  text { fill: #bbb }
  .s0 { --c: #6cb0f5 } .s1 { --c: #f0935c } .s2 { --c: #5cc99a } .s3 { --c: #c79af0 } .s4 { --c: #d9b24a }
}
"""


def slope(points: Points, *, decades: float = 1.5) -> float:
    """The exponent of growth at the large end, fitted to the last decades: 1 is linear, 0 does not grow.

    Below them what is paid once hides what each unit costs.
    """
    last = math.log10(points[-1][0])
    logs = [(math.log10(x), math.log10(y)) for x, y in points if math.log10(x) >= last - decades]
    mean_x, mean_y = (sum(values) / len(logs) for values in zip(*logs, strict=True))
    spread = sum((x - mean_x) ** 2 for x, _ in logs)
    return sum((x - mean_x) * (y - mean_y) for x, y in logs) / spread if spread else math.nan


def plot(title: str, unit: str, series: Mapping[str, Points]) -> str:
    """A drawing of each series with the slope of its end; dashed lines grow linearly."""
    xs = [x for points in series.values() for x, _ in points]
    ys = [y for points in series.values() for _, y in points]
    x0, x1 = math.log10(min(xs)), math.log10(max(xs))
    y0, y1 = math.floor(math.log10(min(ys))), math.ceil(math.log10(max(ys)))

    def across(value: float) -> float:
        return LEFT + (math.log10(value) - x0) / max(x1 - x0, 1e-9) * (WIDTH - LEFT - RIGHT)

    def down(value: float) -> float:
        return HEIGHT - BOTTOM - (math.log10(value) - y0) / max(y1 - y0, 1e-9) * (HEIGHT - TOP - BOTTOM)

    parts = [f'<text class="title" x="8" y="18">{escape(title)}</text>']
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    for decade in range(math.ceil(x0), math.floor(x1) + 1):
        x = across(10**decade)
        parts.append(f'<path class="grid" d="M{x:.1f} {TOP}V{bottom}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">{_short(10**decade)}</text>')
    for decade in range(y0, y1 + 1):
        y = down(10**decade)
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{right}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_short(10**decade)}</text>')
    parts.append(
        f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(unit)}</text>'
    )
    for decade in range(y0 - math.ceil(x1 - x0), y1 + 1):
        parts.append(_guide(across, down, (x0, x1), (y0, y1), decade))
    ends = _apart([down(points[-1][1]) for points in series.values()])
    for number, ((name, points), end) in enumerate(zip(series.items(), ends, strict=True)):
        places = [(across(x), down(y)) for x, y in points]
        line = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        dots = "".join(f'<circle class="point" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in places)
        label = f"{escape(name)}, slope {slope(points):.2f}"
        parts.append(
            f'<g class="s{number}"><path class="line" d="M{line}"/>{dots}'
            f'<text class="label" x="{right + 10}" y="{end + 4:.1f}">{label}</text></g>'
        )
    body = "\n".join(filter(None, parts))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n{body}\n</svg>\n"
    )


def _guide(across, down, xs, ys, decade: int) -> str:  # type: ignore[no-untyped-def]
    """A dashed line of slope 1 that has 10^decade at the left edge, within the frame."""
    begin, end = max(xs[0], xs[0] + ys[0] - decade), min(xs[1], xs[0] + ys[1] - decade)
    if begin >= end:
        return ""
    (x, y), (to_x, to_y) = ((across(10**at), down(10 ** (decade + at - xs[0]))) for at in (begin, end))
    return f'<path class="guide" d="M{x:.1f} {y:.1f}L{to_x:.1f} {to_y:.1f}"/>'


def _apart(ends: Sequence[float], *, least: float = 15) -> list[float]:
    """Heights of labels near these, so that none lies on another."""
    placed: dict[int, float] = {}
    above = -math.inf
    for number in sorted(range(len(ends)), key=ends.__getitem__):
        above = placed[number] = max(ends[number], above + least)
    overhang = max(0.0, above - (HEIGHT - BOTTOM))
    return [placed[number] - overhang for number in range(len(ends))]


def _short(value: float) -> str:
    """1 k, 10 M."""
    for power, letter in ((9, "G"), (6, "M"), (3, "k")):
        if value >= 10**power:
            return f"{value / 10**power:g} {letter}"
    return f"{value:g}"
