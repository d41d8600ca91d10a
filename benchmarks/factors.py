"""14 factors of `alpha158` out of a DuckDB file, over 3,390 days of 800 instruments, as a table in memory.

pyqlib, where there is one (`quant_peers.py`), stores prices alone and computes 14 of its own factors as it loads them. Both read files that
the system has in memory.
"""

from __future__ import annotations

import alpha158
import data
import pyarrow as pa
import pyarrow.parquet as pq
import quant_peers
from measure import Candidate, Figure, Result, Settings, take_turns

import asof
from asof.features.library import SHIPPED

TARGET = 0.5
BEFORE = 10 * 365
"""Days by which the bars are moved into the past: a store takes none of the future."""


def run(settings: Settings) -> Result:
    """Measure it."""
    instruments = max(2, round(alpha158.INSTRUMENTS * settings.scale))
    bars = _earlier(alpha158.prices(instruments))
    pq.write_table(bars, settings.folder / "bars.parquet")
    path = settings.folder / "factors.duckdb"
    factors = list(SHIPPED["alpha158"].features)[:: len(SHIPPED["alpha158"].features) // quant_peers.FACTORS][: quant_peers.FACTORS]
    with asof.connect(str(path)) as store:
        store.ingest_bars(settings.folder / "bars.parquet", timeframe="1d")
        store.backfill("alpha158", "1d")
        ours = Candidate(lambda: store.history([f"alpha158:{name}" for name in factors], "1d").to_arrow())
        seconds = take_turns({"asof": ours}, settings.repeat)
    path.unlink()
    seconds |= quant_peers.seconds({"pyqlib": "qlib-14"}, bars, settings.folder)
    return Result(
        f"{len(factors)} factors out of the store, {instruments} instruments x {alpha158.BARS:,} days",
        [Figure(name, found, len(bars)) for name, found in seconds.items()],
        f"at most {TARGET * instruments / alpha158.INSTRUMENTS:.2f} s",
        f"{seconds['asof']:.2f} s",
        seconds["asof"] <= TARGET * instruments / alpha158.INSTRUMENTS,
    )


def _earlier(bars: pa.Table) -> pa.Table:
    moved = pa.array(bars["ts"].cast(pa.int64()).to_numpy() - BEFORE * alpha158.DAY).cast(data.UTC)
    return bars.set_column(bars.schema.get_field_index("ts"), "ts", moved)
