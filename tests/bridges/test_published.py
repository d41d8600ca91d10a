"""Real prices, some published again with other values: a walk sees each morning what the bars published by then give, and no more."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import asof
from asof import FeatureSet, bars

RETURNS = FeatureSet("published", {"ret_1": bars.close / bars.close.lag(1) - 1, "volume_3": bars.volume.mean(3)})
MAPPED = {"instrument_id": "ticker", "ts": "trade_date", "available_at": "first", "known_from": "published_at_utc"}


def restated(prices: pa.Table, most: int) -> list[str]:
    """Some of the stocks of which a close or a volume was published again with another value."""
    values = prices.group_by(["ticker", "trade_date"]).aggregate([("close", "count_distinct"), ("volume", "count_distinct")])
    again = pc.or_(pc.greater(values["close_count_distinct"], 1), pc.greater(values["volume_count_distinct"], 1))
    return sorted(pc.unique(values.filter(again)["ticker"]).to_pylist())[:most]


@pytest.mark.slow
def test_each_morning_sees_what_was_published_by_then(shared_data: Path, tmp_path: Path) -> None:
    prices = pq.read_table(shared_data / "pit" / "pystock_prices_asof.parquet")
    prices = prices.filter(pc.is_in(prices["ticker"], pa.array(restated(prices, 3))))
    first = (
        prices.group_by(["ticker", "trade_date"]).aggregate([("published_at_utc", "min")]).rename_columns(["ticker", "trade_date", "first"])
    )
    pq.write_table(prices.join(first, ["ticker", "trade_date"]).sort_by("published_at_utc"), tmp_path / "prices.parquet")
    days: list[datetime] = [
        day + timedelta(seconds=1) for day in sorted(pc.unique(prices["published_at_utc"]).to_pylist())[:25]
    ]  # all of it is there
    with asof.connect("duckdb://") as published, asof.connect("duckdb://") as replayed:
        published.ingest_bars(tmp_path / "prices.parquet", timeframe="1d", columns=MAPPED, timezone="UTC")
        published.replay(RETURNS, "1d", into=replayed, end=days[-1], every_moment=True)
        by_clock = list(asof.iter_asof(replayed, RETURNS, "1d", at=days))
        with_hindsight = list(asof.iter_asof(replayed, RETURNS, "1d", at=days, known_at=None))
        for step in by_clock[5::5]:
            then = published.compute(RETURNS, "1d", known_at=step.at).to_pylist()
            newest = {row["instrument_id"]: row for row in then if row["available_at"] <= step.at}  # by time, so the last stays
            assert {name: (vector.ts, dict(vector)) for name, vector in step.items()} == {
                name: (row["ts"], {feature: row[feature] for feature in RETURNS.features}) for name, row in newest.items()
            }
    changed = [one.at for one, other in zip(by_clock, with_hindsight, strict=True) if one.to_arrow() != other.to_arrow()]
    assert changed, "some were restated, and only hindsight knows how"
