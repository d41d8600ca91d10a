"""The indicators within a session beside pandas, on real minutes of three shares with extended hours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from asof import FeatureSet, compute
from asof.features.library import technical as ta
from tests.oracles import FINITE

SESSION = FeatureSet("session", {"vwap_session": ta.vwap_session(), "bars_since_open": ta.bars_since_open()})


def session_differences(folder: Path) -> Iterator[tuple[str, float, float, int]]:
    """Of each indicator: its largest difference from pandas, how large it may be, and of how many values."""
    minutes = pd.read_parquet(folder / "bars_1m" / "lean_equity_trade_1m.parquet")
    minutes = minutes.rename(columns={"ticker": "instrument_id", "ts_open_utc": "ts"}).sort_values(
        ["instrument_id", "ts"], ignore_index=True
    )
    made = compute(SESSION, minutes, timeframe="1m", calendars={"*": "XNYS"}).to_pandas()
    local = minutes.ts.dt.tz_convert("America/New_York")
    clock = local.dt.hour * 60 + local.dt.minute
    inside = (clock >= 9 * 60 + 30) & (clock < 16 * 60)
    each = [minutes.instrument_id[inside], local.dt.date[inside]]
    price = (minutes.high + minutes.low + minutes.close) / 3
    paid, traded = ((x[inside].groupby(each).cumsum()) for x in (price * minutes.volume, minutes.volume))
    theirs = {"vwap_session": paid / traded, "bars_since_open": minutes.volume[inside].groupby(each).cumcount()}
    for name, wanted in theirs.items():
        ours, other = made[name].to_numpy(), wanted.reindex(minutes.index).to_numpy(np.float64)
        both = np.isfinite(ours)
        assert np.isfinite(other[both]).all(), f"{name}: a value outside of the session"
        yield name, float((np.abs(ours - other)[both] / np.maximum(other[both], 1)).max()), FINITE, int(both.sum())
