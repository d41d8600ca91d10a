"""`fs_v1`'s eight features in Polars, DuckDB and pandas, each as one who knows it well would write them.

All three use the same insight, which none of them has by itself: the events in a window change only when one comes in (at its
time) or falls out (a microsecond after its hour is over). So the windows are worked out at these edges, two for each event, and
each bar takes those of the newest edge before it. With a fifth as many events as bars, Polars and DuckDB are faster this way than
with a window for every bar.

Each peer starts from its own kind of table, made before the clock starts, and is spared the flags, counts and times that asof adds.
"""

from __future__ import annotations

from collections.abc import Callable

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa

Run = Callable[[], pa.Table | pl.DataFrame | pd.DataFrame]

FEATURES = (
    "ret_1",
    "ret_5",
    "vol_20",
    "event_count_1h",
    "sentiment_mean_1h",
    "sentiment_conf_mean_1h",
    "sentiment_weighted_1h",
    "sentiment_std_1h",
)
KEY = "instrument_id"


def with_polars(bars: pa.Table, events: pa.Table) -> Run:
    """Lazy frames; windows by `rolling`, bars to edges by `join_asof`."""
    prices, news = pl.DataFrame(bars), pl.DataFrame(events)
    return lambda: _polars(prices.lazy(), news.lazy()).collect()


def _polars(bars: pl.LazyFrame, events: pl.LazyFrame) -> pl.LazyFrame:
    close, n = pl.col("close"), pl.col("event_count_1h")
    prices = bars.with_columns(
        ret_1=close / close.shift(1).over(KEY) - 1,
        ret_5=close / close.shift(5).over(KEY) - 1,
    ).with_columns(vol_20=pl.col("ret_1").rolling_std(20, min_samples=20, ddof=0).over(KEY))
    windows = _polars_windows(events)
    weighted = pl.when(pl.col("most") > 0).then(pl.col("weighted") / pl.col("weights")).otherwise(pl.col("sentiment_mean_1h"))
    return prices.join_asof(windows, on="ts", by=KEY, strategy="backward", check_sortedness=False).select(
        KEY,
        "ts",
        "ret_1",
        "ret_5",
        "vol_20",
        n.fill_null(0).cast(pl.Float64),
        "sentiment_mean_1h",
        "sentiment_conf_mean_1h",
        sentiment_weighted_1h=pl.when(n > 0).then(weighted),
        sentiment_std_1h=pl.when(n >= 2).then(pl.col("sentiment_std_1h")),
    )


def _polars_windows(events: pl.LazyFrame) -> pl.LazyFrame:
    score, confidence, nothing = pl.col("score"), pl.col("confidence"), pl.lit(None, pl.Float64)
    entering = events.select(KEY, ts="enriched_at_utc", score="score", confidence="confidence")
    leaving = entering.select(KEY, ts=pl.col("ts") + pl.duration(hours=1, microseconds=1), score=nothing, confidence=nothing)
    edges = pl.concat([entering, leaving]).sort(KEY, "ts")
    return edges.rolling("ts", period="60m", closed="both", group_by=KEY).agg(
        event_count_1h=score.count(),
        sentiment_mean_1h=score.mean(),
        sentiment_conf_mean_1h=confidence.mean(),
        weighted=(score * confidence).sum(),
        weights=confidence.sum(),
        most=confidence.max(),  # a running sum of weights need not come back to 0
        sentiment_std_1h=score.std(ddof=0),
    )


_DUCKDB = """
WITH returns AS (
    SELECT instrument_id, ts, close / lag(close) OVER series - 1 AS ret_1, close / lag(close, 5) OVER series - 1 AS ret_5
    FROM bars WINDOW series AS (PARTITION BY instrument_id ORDER BY ts)
), prices AS (
    SELECT *, CASE WHEN count(ret_1) OVER last_20 = 20 THEN stddev_pop(ret_1) OVER last_20 END AS vol_20
    FROM returns WINDOW last_20 AS (PARTITION BY instrument_id ORDER BY ts ROWS 19 PRECEDING)
), edges AS (
    SELECT * FROM events UNION ALL SELECT instrument_id, ts + INTERVAL 1 HOUR + INTERVAL 1 MICROSECOND, NULL, NULL FROM events
), windows AS (
    SELECT instrument_id, ts, count(score) OVER hour AS n, avg(score) OVER hour AS mean, avg(confidence) OVER hour AS confidence,
        sum(score * confidence) OVER hour AS weighted, sum(confidence) OVER hour AS weights, stddev_pop(score) OVER hour AS deviation
    FROM edges WINDOW hour AS (PARTITION BY instrument_id ORDER BY ts RANGE BETWEEN INTERVAL 1 HOUR PRECEDING AND CURRENT ROW)
)
SELECT p.*, coalesce(n, 0)::DOUBLE AS event_count_1h, mean AS sentiment_mean_1h, confidence AS sentiment_conf_mean_1h,
    CASE WHEN weights > 0 THEN weighted / weights ELSE mean END AS sentiment_weighted_1h,
    CASE WHEN n >= 2 THEN deviation END AS sentiment_std_1h
FROM prices p ASOF LEFT JOIN windows w ON p.instrument_id = w.instrument_id AND p.ts >= w.ts
"""


def with_duckdb(bars: pa.Table, events: pa.Table) -> Run:
    """One statement of window functions and an as-of join, over tables of an in-memory database; its rows come in any order."""
    connection = duckdb.connect(config={"preserve_insertion_order": False})
    connection.execute("SET TimeZone = 'UTC'")
    connection.register("bars_given", bars).register("events_given", events)
    connection.execute("CREATE TABLE bars AS SELECT instrument_id, ts, close FROM bars_given")
    connection.execute("CREATE TABLE events AS SELECT instrument_id, enriched_at_utc AS ts, score, confidence FROM events_given")
    return lambda: connection.sql(_DUCKDB).to_arrow_table()


def with_pandas(bars: pa.Table, events: pa.Table) -> Run:
    """`groupby` with `shift` and `rolling`, bars to edges by `merge_asof`; the instruments are categories."""
    prices, news = bars.to_pandas(), events.drop(["event_id"]).to_pandas().rename(columns={"enriched_at_utc": "ts"})
    kind = pd.CategoricalDtype(prices[KEY].unique())
    prices[KEY], news[KEY] = prices[KEY].astype(kind), news[KEY].astype(kind)
    return lambda: _pandas(prices, news)


def _pandas(bars: pd.DataFrame, events: pd.DataFrame) -> pd.DataFrame:
    close = bars.groupby(KEY, observed=True, sort=False)["close"]
    ret_1 = bars["close"] / close.shift(1) - 1
    volatility = ret_1.groupby(bars[KEY], observed=True, sort=False).rolling(20).std(ddof=0).droplevel(0)
    prices = bars[[KEY, "ts"]].assign(ret_1=ret_1, ret_5=bars["close"] / close.shift(5) - 1, vol_20=volatility)
    ordered = prices.sort_values("ts", kind="stable")
    found = pd.merge_asof(ordered, _pandas_windows(events).sort_values("ts", kind="stable"), on="ts", by=KEY)
    found.index = ordered.index
    found["event_count_1h"] = found["event_count_1h"].fillna(0.0)
    return found.sort_index()


def _pandas_windows(events: pd.DataFrame) -> pd.DataFrame:
    entering = events.assign(product=events["score"] * events["confidence"])
    leaving = events[[KEY]].assign(ts=events["ts"] + pd.Timedelta(hours=1, microseconds=1))
    edges = pd.concat([entering, leaving]).sort_values([KEY, "ts"], kind="stable", ignore_index=True)
    hour = edges.set_index("ts").groupby(KEY, observed=True, sort=False)[["score", "confidence", "product"]].rolling("1h", closed="both")
    count = hour["score"].count().to_numpy()
    mean, sums, most = hour[["score", "confidence"]].mean(), hour[["confidence", "product"]].sum(), hour["confidence"].max()
    windows = edges[[KEY, "ts"]].assign(
        event_count_1h=count,
        sentiment_mean_1h=mean["score"].to_numpy(),
        sentiment_conf_mean_1h=mean["confidence"].to_numpy(),
        sentiment_std_1h=hour["score"].std(ddof=0).to_numpy(),
        sentiment_weighted_1h=(sums["product"] / sums["confidence"]).to_numpy(),
    )
    unweighted = most.to_numpy() == 0
    windows.loc[unweighted, "sentiment_weighted_1h"] = windows["sentiment_mean_1h"][unweighted]
    windows.loc[count < 1, ["sentiment_mean_1h", "sentiment_conf_mean_1h", "sentiment_weighted_1h"]] = float("nan")
    half_range = (hour["score"].max() - hour["score"].min()).to_numpy() / 2  # what rolling loses where two scores are nearly the same
    windows.loc[count <= 2, "sentiment_std_1h"] = pd.Series(half_range).where(count == 2)
    return windows
