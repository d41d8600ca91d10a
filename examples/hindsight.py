"""One strategy with hindsight and without, drawn: what a corrected price, known too early, adds to a backtest, and a bar known at its open.

The market is made up. Its returns have some momentum, and its vendor prints one close in ten wrong and corrects it two days later. The
strategy holds, from open to open, whatever has risen by more than a per cent.

1. `as known then` walks over a store that a replay has filled: each vector as it was on that morning, wrong prints and all.
2. `corrections known early` reads the newest revisions of the same store. Nothing is looked at before its bar has closed, and still the
   wrong prints are gone before anybody could know.
3. `a bar's close known at its open` joins vectors to bars by `ts`, which every table of bars invites to.

Takes the file to draw into.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib as mpl
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from matplotlib.figure import Figure

import asof
from asof import FeatureSet, bars

RISE = FeatureSet("rise_v1", {"ret_1": bars.close / bars.close.lag(1) - 1})
NAMES, DAYS, DAY = ("ALFA", "BRAVO", "CARGO", "DELTA"), 250, 86_400_000_000
SESSION = DAY * 65 // 240  # from 14:30 to 21:00
COLUMNS = {"available_at": "available", "known_from": "known"}
KINDS = {"as known then": "#0f6cbd", "corrections known early": "#d9662b", "a bar's close known at its open": "#616e7c"}


def publications(folder: Path, days: int) -> Path:
    """A file of daily bars with the time at which each was published, wrong ones and their corrections among them."""
    random = np.random.default_rng(11)
    opens = int(datetime(2023, 1, 2, 14, 30, tzinfo=UTC).timestamp()) * 1_000_000 + np.arange(days) * DAY
    tables = []
    for name in NAMES:
        moves = random.normal(0, 0.012, days)
        for day in range(1, days):
            moves[day] += 0.2 * moves[day - 1]
        close = 50 * np.exp(np.cumsum(moves))
        opening = np.append(50, close[:-1]) * np.exp(random.normal(0, 0.002, days))
        wrong = random.random(days) < 0.1
        printed = np.where(wrong, close * np.exp(random.choice([-0.04, 0.04], days)), close)
        for price, which, late in ((printed, slice(None), 0), (close, wrong, 2 * DAY)):
            times = {"ts": 0, "available": SESSION, "known": SESSION + late}
            rows = {what: pa.array(opens[which] + after, pa.timestamp("us", "UTC")) for what, after in times.items()}
            names = pa.array([name] * len(opens[which]))
            tables.append(pa.table({"instrument_id": names, "open": opening[which], "close": price[which], **rows}))
    path = folder / "published.parquet"
    pq.write_table(pa.concat_tables(tables).sort_by("known"), path)
    return path


def growth(days: int = DAYS) -> dict[str, np.ndarray]:
    """What a unit of money becomes, day by day, for each kind of knowledge."""
    with TemporaryDirectory() as folder, asof.connect("duckdb://") as published, asof.connect("duckdb://") as live:
        published.ingest_bars(publications(Path(folder), days), timeframe="1d", columns=COLUMNS)
        published.replay(RISE, "1d", into=live, every_moment=True)
        known = {
            "as known then": asof.aligned(live, RISE, "1d"),
            "corrections known early": asof.aligned(live, RISE, "1d", known_at=None),
        }
        opens = pivoted(known["as known then"], "open")
        signals = {kind: pivoted(frame, "ret_1") for kind, frame in known.items()}
        by_ts = live.history(RISE, "1d")
        signals["a bar's close known at its open"] = pivoted(by_ts, "ret_1")
    return {kind: earned(opens, signal) for kind, signal in signals.items()}


def pivoted(frame: asof.Frame, column: str) -> np.ndarray:
    """A column by day and instrument."""
    return frame.to_pandas().pivot(index="ts", columns="instrument_id", values=column).to_numpy()


def earned(opens: np.ndarray, signal: np.ndarray) -> np.ndarray:
    """The money of each day where what rose by more than a per cent is held, in equal parts, to the next open."""
    held = signal[:-1] > 0.01
    moves = opens[1:] / opens[:-1] - 1
    return np.append(1.0, np.cumprod(1 + np.where(held, moves, 0).sum(axis=1) / np.maximum(held.sum(axis=1), 1)))


def draw(grown: dict[str, np.ndarray], path: Path) -> None:
    """The curves, each with its name and its end beside it."""
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#616e7c"}):
        figure = Figure(figsize=(9, 4.2), dpi=110, layout="constrained")
        axes = figure.subplots()
        for kind, money in grown.items():
            axes.plot(money, color=KINDS[kind], lw=1.8 if kind == "as known then" else 1.3)
            axes.annotate(
                f"{kind}: {money[-1]:.2f}", (len(money) - 1, money[-1]), (6, 0), textcoords="offset points", color=KINDS[kind], va="center"
            )
        axes.set_yscale("log", base=2)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.grid(axis="y", color="#e4e7eb", lw=0.8)
        axes.set_xlim(0, len(money) * 1.42)
        axes.set_xticks(range(0, len(money) + 1, 50))
        axes.set_xlabel("days", loc="left")
        axes.set_title(
            "One strategy, three states of knowledge: what 1 becomes (made-up market, no costs)", loc="left", weight="bold", fontsize=10
        )
        figure.savefig(path)


def main(path: str) -> None:
    """Draw, and print the ends."""
    grown = growth()
    draw(grown, Path(path))
    for kind, money in grown.items():
        print(f"{kind}: {money[-1]:.3f}")


if __name__ == "__main__":
    main(sys.argv[1])
