"""Bars and features for vectorbt, and whatever else computes on wide pandas frames. Needs pandas; vectorbt itself is not imported.

A row is the moment at which its bars open: the features are those known then, so signals made of them are filled at the `open` of the same
row (`Portfolio.from_signals(close, entries, exits, price=open)`), and at nothing earlier.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from asof.backtests import CLOCK, aligned
from asof.feature_store import FeatureStore, Sets, Time

if TYPE_CHECKING:
    from datetime import timedelta

    import pandas


def panels(
    store: FeatureStore,
    features: Sets | Iterable[str],
    timeframe: str,
    *,
    instruments: Iterable[str] | None = None,
    start: Time = None,
    end: Time = None,
    known_at: Time = CLOCK,
    max_age: timedelta | str | None = None,
) -> dict[str, pandas.DataFrame]:
    """A frame for each price, `volume` and each feature, by their names: a row for each open (UTC), a column for each instrument.

    NaN where a value is missing, or where the instrument has no bar that opens then. The rest is as in `asof.aligned` with `fill="open"`.
    """
    found = aligned(store, features, timeframe, instruments=instruments, start=start, end=end, known_at=known_at, max_age=max_age)
    table = found.table.drop_columns(["as_of", "vector_ts", "available_at", "quality_flags"])
    values = type(found)(table).to_pandas()
    names = [name for name in table.column_names if name not in ("instrument_id", "ts")]
    return {name: values.pivot(index="ts", columns="instrument_id", values=name) for name in names}  # one value a cell


__all__ = ["panels"]
