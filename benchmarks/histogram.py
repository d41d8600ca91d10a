"""The picture of `stream.py`: how long bars took to become vectors, a panel for each rate."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

INK, QUIET, FAINT, BARS, MARK = "#1f2933", "#616e7c", "#e4e7eb", "#0f6cbd", "#d9662b"
BINS = 60
STYLE = {"font.size": 9, "text.color": INK, "axes.edgecolor": QUIET, "axes.spines.top": False, "axes.spines.right": False}
STYLE |= {"axes.spines.left": False, "xtick.color": QUIET, "xtick.labelcolor": INK, "svg.hashsalt": "asof", "svg.fonttype": "none"}


def draw(latencies: Mapping[int, np.ndarray], path: Path) -> None:
    """Draw the seconds that bars took, by bars a second; the file's name says whether as PNG or SVG.

    Time runs on a logarithmic axis that the panels share; a panel's height is its own.
    """
    ends = np.concatenate(list(latencies.values())) * 1000
    edges = np.geomspace(ends.min(), ends.max() * 1.001, BINS + 1)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 0.6 + 1.1 * len(latencies)), dpi=110, layout="constrained")
        panels = figure.subplots(len(latencies), 1, sharex=True, squeeze=False)[:, 0]
        for panel, (rate, found) in zip(panels, latencies.items(), strict=True):
            _panel(panel, rate, found * 1000, edges)
        panels[-1].set_xlabel("milliseconds from a bar at the broker to its vector in the topic", color=INK)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _panel(panel: mpl.axes.Axes, rate: int, milliseconds: np.ndarray, edges: np.ndarray) -> None:
    counts, _ = np.histogram(milliseconds, edges)
    panel.stairs(counts, edges, fill=True, color=BARS)
    panel.set_xscale("log")
    panel.set_yticks([])
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.grid(axis="x", color=FAINT, linewidth=0.8)
    panel.set_axisbelow(True)
    p50, p99 = np.quantile(milliseconds, [0.5, 0.99])
    for value in (p50, p99):
        panel.axvline(value, color=MARK, linewidth=1.2)
    panel.set_title(f"{rate:,} bars a second: half within {p50:,.0f} ms, 99 % within {p99:,.0f} ms", loc="left", fontsize=9, color=INK)
