#!/usr/bin/env python3
"""Draws how cost grows, as SVG, from the JSON that measure.py wrote."""

import json
import math
import pathlib

HERE = pathlib.Path(__file__).resolve().parent
WIDTH, HEIGHT = 380, 270
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 40, 44
COLORS = ["#0b6bcb", "#c2410c", "#3f7d20", "#7c3aed", "#6b7280"]


def of(*path, scale=1.0):
    """The figure at `path` of a run."""

    def get(run):
        for name in path:
            run = run[name]
        return run * scale

    return get


def best_round(name):
    """The best of the rounds of a catch-up."""
    return lambda run: max(value[name] for key, value in run.items() if key.startswith("round_"))


ENTRIES = of("acknowledged", "entries_per_second")
CPU = of("server", "cpu_nanos_per_entry")
LATENCY = [(name, of("acknowledged", "latency", name, scale=1e3)) for name in ["p50", "p99", "p99.9"]]
MEBI = 1 / (1 << 20)

# For each file: the measurement, the label of its values, and panels with a title and series.
PLOTS = {
    "entries": ("cold-start", "entries in the store", [
        ("ready after a cold start, s", [("", of("ready_seconds"))]),
        ("resident when ready, MiB", [("", of("resident_bytes_ready", scale=MEBI))]),
        ("writes/s, one entry each", [("", of("write", "entries_per_second"))]),
    ]),
    "catch-up": ("growth-entries", "entries in the store", [
        ("entries/s to one reader", [("", best_round("entries_per_second"))]),
    ]),
    "stores": ("growth-stores", "stores", [
        ("writes/s, one entry each", [("", ENTRIES)]),
        ("server CPU a write, ns", [("", CPU)]),
        ("answered after, ms", LATENCY),
    ]),
    "subscribers": ("growth-subscribers", "subscribers", [
        ("deliveries/s", [("", of("delivered", "entries_per_second"))]),
        ("server CPU a delivery, ns", [("", CPU)]),
    ]),
    "payload": ("growth-payload", "bytes of payload", [
        ("writes/s, one entry each", [("", ENTRIES)]),
        ("payload, MB/s", [("", lambda run: ENTRIES(run) * run["value"] / 1e6)]),
        ("server CPU a write, ns", [("", CPU)]),
    ]),
    "ingest-payload": ("growth-ingest-payload", "bytes of payload", [
        ("entries/s, 100 in a batch", [("", ENTRIES)]),
        ("payload, MB/s", [("", lambda run: ENTRIES(run) * run["value"] / 1e6)]),
    ]),
    "batch": ("growth-batch", "entries in a batch", [
        ("entries/s", [("", ENTRIES)]),
        ("server CPU an entry, ns", [("", CPU)]),
    ]),
    "rate": ("growth-rate", "writes/s that are due", [
        ("answered after, ms", LATENCY),
    ]),
}


class Axis:
    """A logarithmic axis from `start` to `end` pixels."""

    def __init__(self, values, start, end):
        low, high = math.log10(min(values)), math.log10(max(values))
        # Always more than a decade, so that a flat line looks flat.
        spare = max(0.08, (1.1 - (high - low)) / 2)
        self.low, self.high = low - spare, high + spare
        self.start, self.end = start, end

    def at(self, value):
        part = (math.log10(value) - self.low) / (self.high - self.low)
        return self.start + part * (self.end - self.start)

    def ticks(self):
        powers = range(math.floor(self.low), math.ceil(self.high) + 1)
        digits = [1, 2, 5] if self.high - self.low < 2.5 else [1]
        ticks = [digit * 10.0**power for power in powers for digit in digits]
        ticks = [tick for tick in ticks if self.low <= math.log10(tick) <= self.high]
        return ticks if len(ticks) < 8 else ticks[:: len(ticks) // 5]


def short(value):
    for size, unit in [(1e9, "G"), (1e6, "M"), (1e3, "k")]:
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def text(x, y, content, anchor="middle", size=11, color="#374151"):
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{color}">{content}</text>'


def panel(points, label, title, series):
    """One diagram, at the origin."""
    values = [point["value"] for point in points]
    drawn = [(name, [max(get(point), 1e-9) for point in points]) for name, get in series]
    x = Axis(values, LEFT, WIDTH - RIGHT)
    y = Axis([value for _, line in drawn for value in line], HEIGHT - BOTTOM, TOP)
    parts = [text(LEFT, 20, title, "start", 13, "#111827")]
    for tick in y.ticks():
        at = y.at(tick)
        parts.append(f'<path d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}" stroke="#e5e7eb"/>')
        parts.append(text(LEFT - 6, at + 4, short(tick), "end"))
    for value in values:
        parts.append(text(x.at(value), HEIGHT - BOTTOM + 16, short(value)))
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, label))
    parts.append(f'<path d="M{LEFT} {HEIGHT - BOTTOM}H{WIDTH - RIGHT}" stroke="#9ca3af"/>')
    for number, (name, line) in enumerate(drawn):
        color = COLORS[number % len(COLORS)]
        dots = [(x.at(value), y.at(height)) for value, height in zip(values, line)]
        path = "L".join(f"{left:.1f} {top:.1f}" for left, top in dots)
        parts.append(f'<path d="M{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts += [f'<circle cx="{left:.1f}" cy="{top:.1f}" r="3" fill="{color}"/>' for left, top in dots]
        if name:
            parts.append(text(WIDTH - RIGHT, TOP + 14 * (number + 1) - 18, name, "end", 11, color))
        else:
            parts += [text(left, top - 8, short(height), size=10) for (left, top), height in zip(dots, line)]
    return "\n".join(parts)


def draw(points, label, panels):
    width = WIDTH * len(panels)
    groups = [
        f'<g transform="translate({WIDTH * number} 0)">\n{panel(points, label, title, series)}\n</g>'
        for number, (title, series) in enumerate(panels)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{HEIGHT}" '
        f'viewBox="0 0 {width} {HEIGHT}" font-family="sans-serif">\n'
        f'<rect width="{width}" height="{HEIGHT}" fill="#ffffff"/>\n' + "\n".join(groups) + "\n</svg>\n"
    )


def main():
    figures = json.loads((HERE / "figures.json").read_text())
    for name, (measurement, label, panels) in PLOTS.items():
        if measurement in figures:
            svg = draw(figures[measurement]["figures"], label, panels)
            (HERE / f"{name}.svg").write_text(svg)


if __name__ == "__main__":
    main()
