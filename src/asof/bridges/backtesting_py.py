"""Bars and features for backtesting.py, one instrument as a pandas frame. Needs pandas; backtesting.py itself is not imported.

Its `Strategy.next()` is called when a bar has closed, and its orders are filled at the next open. So a row holds the bar's prices and
the features that were known when the next bar opened: what one could know on giving the order, and nothing later.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from asof.backtests import CLOCK, PRICES, aligned
from asof.errors import DataError
from asof.feature_store import FeatureStore, Sets, Time
from asof.records import Frame

if TYPE_CHECKING:
    from datetime import timedelta

    import pandas


def frame(
    store: FeatureStore,
    features: Sets | Iterable[str],
    timeframe: str,
    instrument: str,
    *,
    start: Time = None,
    end: Time = None,
    known_at: Time = CLOCK,
    max_age: timedelta | str | None = None,
    leave_out_missing: bool = False,
) -> pandas.DataFrame:
    """What `Backtest` takes: `Open`, `High`, `Low`, `Close`, `Volume` and the features, NaN where missing, by the open in UTC.

    In a strategy they are `self.data.Close` and `self.data.ret_1`, the newest last. backtesting.py takes no bar without a price: such a bar
    is refused with `DataError`, or left out where `leave_out_missing` says so. The rest is as in `asof.aligned` with `fill="next_open"`.
    """
    options = {"start": start, "end": end, "instruments": [instrument], "known_at": known_at, "max_age": max_age}
    found = aligned(store, features, timeframe, fill="next_open", **options).to_arrow()  # type: ignore[arg-type]
    prices = PRICES[:4]
    whole = pa.array([True] * len(found))
    for name in prices:
        whole = pc.and_(whole, found[name].is_valid())
    if (missing := len(found) - pc.sum(whole).as_py()) and not leave_out_missing:
        first = found["ts"].filter(pc.invert(whole))[0].as_py().isoformat()
        raise DataError(
            f"{missing} bars of {instrument!r} lack a price, the first at {first}, and backtesting.py takes none such:"
            " leave_out_missing=True leaves them out"
        )
    kept = found.filter(whole).drop_columns(["instrument_id", "as_of", "vector_ts", "available_at", "quality_flags"])
    names = [name.capitalize() if name in PRICES else name for name in kept.column_names]
    return Frame(kept.rename_columns(names)).to_pandas().set_index("ts")


__all__ = ["frame"]
