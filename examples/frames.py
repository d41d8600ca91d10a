"""Bars as a pandas and a Polars frame, each with the features that were known when it opened."""

from __future__ import annotations

from sample_store import sample_store

import asof


def main() -> None:
    """Print the correlation of what was known at a bar's open with what the bar then did, by pandas and by Polars."""
    with sample_store() as store:
        frame = asof.aligned(store, ["fs_v1:ret_1", "fs_v1:vol_20"], "1d", known_at=None, max_age="5d")
        pandas = frame.to_pandas()
        print(f"pandas: {pandas['ret_1'].corr(pandas['close'] / pandas['open'] - 1):.6f}")
        polars = frame.to_polars()
        within = (polars["close"] / polars["open"] - 1).alias("within")
        known = polars.with_columns(within).drop_nulls(["ret_1"]).select(["ret_1", "within"])
        print(f"Polars: {known.corr()['within'][0]:.6f}")


if __name__ == "__main__":
    main()
