"""The picture of `fs_v1` over time, drawn with matplotlib.

One panel for each question, each with the same time axis: the return, the volatility, what the news said, how much of it there was,
and which quality flags were raised. A missing value is drawn as nothing at all, never as a zero or as a line across.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import matplotlib as mpl
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, HPacker, TextArea
from matplotlib.ticker import MaxNLocator, PercentFormatter

INK, QUIET, FAINT = "#1f2933", "#616e7c", "#e4e7eb"
UP, DOWN, LINE = "#0f6cbd", "#d9662b", "#1f2933"
"""Blue and orange instead of green and red: everybody tells them apart."""

HEIGHTS = (3, 3, 3, 1.5, 2.5)
STYLE = {
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": QUIET,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.8,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "ytick.major.size": 0,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}

Values = Sequence[float | None]


def draw_features(vectors: pa.Table, path: Path) -> None:
    """Draw the stored `fs_v1` vectors of one instrument, oldest first, into an image file."""
    rows = vectors.to_pydict()
    ts: list[datetime] = rows["ts"]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 7.6), dpi=130, layout="constrained")
        figure.get_layout_engine().set(h_pad=0.07, hspace=0.02)  # type: ignore[union-attr]  # the layout named above
        returns, volatility, sentiment, count, flags = figure.subplots(len(HEIGHTS), 1, sharex=True, height_ratios=HEIGHTS)
        _title(returns, "ret_1", "return from one close to the next")
        _signed_bars(returns, ts, rows["ret_1"])
        _title(volatility, "vol_20", "standard deviation of the last 20 returns")
        _line_with_gap(volatility, ts, rows["vol_20"], rows["ohlcv_count"])
        _title(sentiment, "sentiment_mean_1h", "mean score, -1 to 1, of the hour before the bar opens; no mark where it is missing")
        _signed_stems(sentiment, ts, rows["sentiment_mean_1h"])
        _title(count, "event_count_1h", "events in that hour")
        count.bar(ts, rows["event_count_1h"], width=1.0, color=QUIET)
        count.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        _title(flags, "quality_flags", "a mark for each vector that carries the flag")
        _flag_strips(flags, ts, rows["quality_flags"])
        margin = 0.01 * (ts[-1] - ts[0])
        flags.set_xlim(ts[0] - margin, ts[-1] + margin)
        locator = AutoDateLocator(maxticks=12)
        flags.xaxis.set_major_locator(locator)
        flags.xaxis.set_major_formatter(ConciseDateFormatter(locator))
        figure.suptitle(
            f"{rows['instrument_id'][0]}, fs_v1, {rows['timeframe'][0]} bars (made-up data)", x=0.012, ha="left", size=13, weight="bold"
        )
        figure.savefig(path)


def _title(axes: Axes, name: str, meaning: str) -> None:
    """The feature's name, and beside it in a quieter voice what it is and in which unit."""
    words = [TextArea(name, textprops={"weight": "bold"}), TextArea(meaning, textprops={"color": QUIET})]
    line = HPacker(children=words, align="baseline", pad=0, sep=7)
    place = {"xycoords": "axes fraction", "boxcoords": "offset points", "box_alignment": (0, 0)}
    axes.add_artist(AnnotationBbox(line, (0, 1), (0, 5), frameon=False, pad=0, **place))


def _signed_bars(axes: Axes, ts: Sequence[datetime], values: Values) -> None:
    known = [(t, v) for t, v in zip(ts, values, strict=True) if v is not None]
    axes.bar([t for t, _ in known], [v for _, v in known], width=1.0, color=[_sign_colour(v) for _, v in known])
    axes.axhline(0, color=QUIET, lw=0.8)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))


def _line_with_gap(axes: Axes, ts: Sequence[datetime], values: Values, bars: Sequence[int]) -> None:
    """A line, broken where the value is missing; the stretch before the first one is shaded, with the reason."""
    axes.plot(ts, [math.nan if v is None else v for v in values], color=LINE, lw=1.4)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
    first = next((i for i, v in enumerate(values) if v is not None), None)
    if first:
        axes.axvspan(ts[0], ts[first], color=FAINT, lw=0)
        note = f"missing: it needs {bars[first]} bars"
        axes.annotate(note, (ts[first], 0), (5, 5), xycoords=("data", "axes fraction"), textcoords="offset points", color=QUIET)


def _signed_stems(axes: Axes, ts: Sequence[datetime], values: Values) -> None:
    known = [(t, v) for t, v in zip(ts, values, strict=True) if v is not None]
    colours = [_sign_colour(v) for _, v in known]
    axes.vlines([t for t, _ in known], 0, [v for _, v in known], color=colours, lw=1)
    axes.scatter([t for t, _ in known], [v for _, v in known], s=16, c=colours, lw=0, zorder=3)
    axes.axhline(0, color=QUIET, lw=0.8)
    axes.set_ylim(-1.1, 1.1)
    axes.set_yticks([-1, 0, 1])


def _flag_strips(axes: Axes, ts: Sequence[datetime], flags: Sequence[Sequence[str]]) -> None:
    """A strip for each flag that was raised at all, its name above it."""
    names = sorted({name for row in flags for name in row}, reverse=True)
    for level, name in enumerate(names):
        raised = [t for t, row in zip(ts, flags, strict=True) if name in row]
        axes.eventplot(raised, lineoffsets=level + 0.25, linelengths=0.38, linewidths=1.6, colors=QUIET)
        axes.annotate(name, (0, level + 0.6), (4, 0), xycoords=("axes fraction", "data"), textcoords="offset points", size=7)
    axes.set_ylim(0, max(1, len(names)))
    axes.set_yticks([])
    axes.grid(visible=False)


def _sign_colour(value: float) -> str:
    return UP if value >= 0 else DOWN
