"""The picture of a feature set over time, drawn with matplotlib."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import pyarrow as pa
from matplotlib.figure import Figure

INK, QUIET, ACCENT, GOOD, BAD = "#1f2933", "#9aa5b1", "#0b69a3", "#2f8132", "#ba2525"


def draw_features(vectors: pa.Table, path: Path) -> None:
    """Returns, volatility, and news with its sentiment, of one instrument's `fs_v1` vectors."""
    rows = vectors.to_pydict()
    ts = rows["ts"]
    with mpl.rc_context({"font.size": 9, "axes.edgecolor": QUIET, "text.color": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK}):
        figure = Figure(figsize=(9, 6), dpi=140, layout="constrained")
        returns, volatility, news = figure.subplots(3, 1, sharex=True, height_ratios=(2, 2, 3))
        moves = [None if v is None else 100 * v for v in rows["ret_1"]]
        returns.bar(ts, [v or 0 for v in moves], width=1.0, color=[GOOD if (v or 0) >= 0 else BAD for v in moves])
        returns.set_ylabel("ret_1, %")
        volatility.plot(ts, [float("nan") if v is None else 100 * v for v in rows["vol_20"]], color=ACCENT, lw=1.4)
        volatility.set_ylabel("vol_20, %")
        first = next((t for t, v in zip(ts, rows["vol_20"], strict=True) if v is not None), ts[0])
        volatility.axvspan(ts[0], first, color=QUIET, alpha=0.25, lw=0)
        volatility.annotate("missing until 21 bars exist", (ts[0], 0.06), xycoords=("data", "axes fraction"), xytext=(4, 0), textcoords="offset points")
        news.bar(ts, rows["event_count_1h"], width=1.0, color=QUIET, label="event_count_1h")
        news.set_ylabel("event_count_1h")
        news.yaxis.get_major_locator().set_params(integer=True)
        mood = news.twinx()
        known = [(t, s) for t, s in zip(ts, rows["sentiment_mean_1h"], strict=True) if s is not None]
        mood.scatter([t for t, _ in known], [s for _, s in known], s=14, c=[GOOD if s >= 0 else BAD for _, s in known], zorder=3)
        mood.set_ylim(-1.05, 1.05)
        mood.axhline(0, color=QUIET, lw=0.8)
        mood.set_ylabel("sentiment_mean_1h (dots)")
        figure.suptitle(f"{rows['instrument_id'][0]}: fs_v1, daily bars (made-up sample data)", x=0.01, ha="left", fontweight="bold")
        for axis in (returns, volatility, news, mood):
            axis.spines["top"].set_visible(False)
        figure.savefig(path)
