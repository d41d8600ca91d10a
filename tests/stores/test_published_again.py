"""Prices as they were published day by day, some again with other values: what was known on a day is what a store of that day knew."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from asof import FeatureSet, bars
from asof.config import Settings
from asof.feature_store import FeatureStore
from asof.stores.store import BARS_TABLE, Selection, Store
from tests.stores.conftest import Opener

PRICES = Path(__file__).parents[3] / "shared" / "data" / "pit" / "pystock_prices_asof.parquet"
pytestmark = pytest.mark.skipif(not PRICES.exists(), reason="the data folder is not beside the checkout")

MAPPED = {"instrument_id": "ticker", "ts": "trade_date", "known_from": "published_at_utc"}
RETURNS = FeatureSet("published", {"ret_1": bars.close / bars.close.lag(1) - 1, "volume_3": bars.volume.mean(3)})
KEYS = [("instrument_id", "ascending"), ("ts", "ascending")]


def ingest(store: Store, prices: pa.Table, folder: Path) -> FeatureStore:
    """A store of prices as they were published."""
    pq.write_table(prices, folder / "prices.parquet")
    opened = FeatureStore(store, Settings())
    opened.ingest_bars(folder / "prices.parquet", timeframe="1d", columns=MAPPED, timezone="UTC")
    return opened


def bars_known(store: Store, known_at: datetime | None) -> pa.Table:
    found = store.read(BARS_TABLE, Selection("1d", known_at=known_at))
    return pa.concat_tables([BARS_TABLE.schema.empty_table(), *found]).drop_columns(["source"]).sort_by(KEYS)


def test_what_was_known_on_a_day_is_what_a_store_of_that_day_knew(new_store: Opener, tmp_path: Path) -> None:
    prices = pq.read_table(PRICES)
    days = sorted(pc.unique(prices["published_at_utc"]).to_pylist())
    with new_store() as whole, new_store() as growing:
        all_of_it = ingest(whole, prices, tmp_path)
        for n, day in enumerate(days):
            known = ingest(growing, prices.filter(pc.equal(prices["published_at_utc"], pa.scalar(day))), tmp_path)
            assert bars_known(whole, day) == bars_known(growing, None)
            if n % 10 == 5:
                then = all_of_it.compute(RETURNS, "1d", known_at=day).to_arrow()
                assert then.drop_columns(["computed_at"]) == known.compute(RETURNS, "1d").to_arrow().drop_columns(["computed_at"])
        assert bars_known(whole, None) != bars_known(whole, days[-2])
