"""The feature sets that ship beside others: golden files, TA-Lib, NumPy, pandas and plain Python, on real prices and posts.

What is found of a set is a difference for each of its features, so that none is left out; the page shows the largest of them.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from asof import compute, fs_v1
from asof.engine.trial import tried
from asof.features.library import SHIPPED
from asof.features.library.alpha import DAYS, PRICES, TINY
from asof.features.library.fs_v1 import build
from tests.oracles import (
    EXACT,
    FINITE,
    Floats,
    Table,
    corr,
    faded,
    rolled,
    series,
    table_of,
)
from tests.oracles_points import DAY, HOUR, Posts, days_of, micros, posts_of

Column = Floats | pd.Series


@dataclass(frozen=True)
class Found:
    """Of one feature: its largest difference in parts of the value, or of 1 where that is more, and of how many values."""

    difference: float
    values: int

    def __or__(self, other: Found) -> Found:
        return Found(max(self.difference, other.difference), self.values + other.values)


def beside(ours: Column, theirs: Column, name: str, failed: NDArray[np.bool_] | None = None) -> Found:
    """What two columns differ by. Ours has a value wherever theirs has one and nowhere else, but in rows where something `failed`."""
    mine, other = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    wrong = np.isfinite(mine) != np.isfinite(other)
    assert not (wrong if failed is None else wrong & ~failed).any(), f"{name}: not missing where the oracle is"
    both = np.isfinite(mine) & np.isfinite(other)
    return Found(float((np.abs(mine - other)[both] / np.maximum(np.abs(other[both]), 1)).max(initial=0.0)), int(both.sum()))


def failures(made: pd.DataFrame) -> NDArray[np.bool_]:
    """The rows that tell of an error, such as a division by zero, of which the oracle may make something."""
    return made.quality_flags.map(lambda flags: "COMPUTATION_ERROR" in flags).to_numpy(np.bool_)


GOLDEN = {"fs_v1_stocknet_1d.parquet": fs_v1, "fs_v1_stocknet_1d_window_1440m.parquet": build("1440m")}
"""The expected vectors, with the form of `fs_v1` that they are of."""


def fs_v1_found(folder: Path) -> dict[str, Found]:
    """Beside the golden files; the quality flags are the same in all rows."""
    found: dict[str, Found] = {}
    for file, feature_set in GOLDEN.items():
        golden = pd.read_parquet(folder / "golden" / file).sort_values(["instrument_id", "ts"], ignore_index=True)
        made = compute(feature_set, days_of(folder), posts_of(folder), timeframe="1d").to_pandas()
        assert made.quality_flags.map(sorted).tolist() == golden.quality_flags.map(sorted).tolist()
        for name in feature_set.features:
            one = beside(made[name], golden[name], name)
            found[name] = found[name] | one if name in found else one
    return found


def with_details(posts: pd.DataFrame) -> pd.DataFrame:
    """Posts with what they lack: a category and a kind of source, by the first letter of the hash of their text."""
    letter = posts.text_sha256.str[0]
    return posts.assign(
        text_hash=posts.text_sha256,
        category=letter.map(lambda c: "earnings" if c in "0123" else "company"),
        source=letter.map(lambda c: "twitter" if c in "01468" else "reddit" if c in "2a" else "rss"),
    )


def fs_v2_found(folder: Path) -> dict[str, Found]:
    """Beside NumPy in long doubles and plain Python; the features of `fs_v1` beside those of `fs_v1` itself, which has its golden files."""
    posts = with_details(posts_of(folder))
    posts["source_name"] = "stocknet"
    days = days_of(folder)
    made = compute(SHIPPED["fs_v2"], days, posts, timeframe="1d").to_pandas()
    old = compute(fs_v1, days, posts, timeframe="1d").to_pandas()
    found = {name: beside(made[name], old[name], name) for name in fs_v1.features}
    by_stock = {name: of.reset_index(drop=True) for name, of in posts.groupby("instrument_id")}
    for stock, ours in made.groupby("instrument_id"):
        day = days[days.instrument_id == stock].sort_values("ts")
        told = Told.of(by_stock.get(stock, posts[:0]))
        theirs = technical_of_fs_v2(table_of(day)) | news_of_fs_v2(told, micros(ours.ts))
        for name, column in theirs.items():
            one = beside(ours[name], column, f"{stock} {name}", failures(ours))
            found[name] = found[name] | one if name in found else one
    return found


REACH = 150


def technical_of_fs_v2(t: Table) -> dict[str, Column]:
    """The indicators from their definitions, each window by itself."""
    close, before = t["close"], np.concatenate([[np.nan], t["close"][:-1]])
    change = close - before
    true = np.fmax(t["high"] - t["low"], np.fmax(np.abs(t["high"] - before), np.abs(t["low"] - before)))
    true[0] = np.nan
    t = {**t, "rise": np.maximum(change, 0), "fall": np.maximum(-change, 0), "true": true}

    def fading(alpha: float, name: str) -> Floats:
        return rolled(lambda w: faded(w, alpha), REACH, name)(t)

    rise, fall, fast, slow = fading(1 / 14, "rise"), fading(1 / 14, "fall"), fading(2 / 13, "close"), fading(2 / 27, "close")
    mean, deviation = rolled(lambda w: w.mean(axis=1), 20, "close")(t), rolled(lambda w: w.std(axis=1), 20, "close")(t)
    return {
        "rsi_14": 100 * rise / (rise + fall),
        "ppo_12_26": (fast - slow) / slow * 100,
        "natr_14": fading(1 / 14, "true") / close * 100,
        "bb_position_20": (close - (mean - 2 * deviation)) / (4 * deviation),
        "volume_z_20": rolled(lambda w: (w[:, -1] - w.mean(axis=1)) / w.std(axis=1), 20, "volume")(t),
        "parkinson_20": rolled(lambda h, lo: np.sqrt((np.log(h / lo) ** 2).mean(axis=1) / (4 * np.log(2))), 20, "high", "low")(t),
    }


@dataclass(frozen=True)
class Told:
    """The posts of one stock with what is said of them."""

    posts: Posts
    category: list[str]
    source: list[str]
    text: list[str]
    repost: list[bool]

    @classmethod
    def of(cls, posts: pd.DataFrame) -> Told:
        """From a table in the order in which they became known."""
        points = Posts(micros(posts.enriched_at_utc), posts.score.tolist(), posts.confidence.tolist(), [])
        return cls(points, *(posts[name].tolist() for name in ("category", "source", "text_hash", "is_repost")))


def news_of_fs_v2(told: Told, opens: list[int]) -> dict[str, Column]:
    """What is said of the posts of a day and a week, by loops over them, at the open of each bar."""
    rows = [of_day(told, at) for at in opens]
    found = {name: pd.Series([row[name] for row in rows], dtype="float64") for name in rows[0]}
    count, mood = found["event_count_1d"].tolist(), found.pop("mood").tolist()
    surprise = [surprising(x, count[max(0, k - 20) : k], 1.0, 20) for k, x in enumerate(count)]
    swing = [surprising(x, mood[max(0, k - 20) : k], 0.05, 5) for k, x in enumerate(mood)]
    return found | {"event_surprise_20": pd.Series(surprise), "sentiment_surprise_20": pd.Series(swing)}


def of_day(told: Told, at: int) -> dict[str, float]:
    posts, day, week = told.posts, told.posts.window(at, DAY), told.posts.window(at, 7 * DAY)
    score, sure = [posts.score[k] for k in day], [posts.confidence[k] for k in day]
    share = [2.0 ** ((posts.known[k] - at) / (6 * HOUR)) for k in day]
    weights = [s * c for s, c in zip(share, sure, strict=True)] if any(sure) else share
    earnings = [k for k in day if told.category[k] == "earnings"]
    talk = [k for k in day if told.source[k] in ("twitter", "reddit")]
    about = [k for k in week if told.category[k] == "earnings"]
    different = len({told.text[k] for k in day})
    return {
        "event_count_1d": float(len(day)),
        "mood": mean(score),
        "sentiment_fading_1d": math.fsum(map(float.__mul__, weights, score)) / math.fsum(weights) if day else math.nan,
        "sentiment_pressure_1d": math.fsum(map(float.__mul__, share, score)) if day else math.nan,
        "novelty_1d": different / len(day) if day else 1.0,
        "repeat_count_1d": float(len(day) - different),
        "repost_count_1d": float(sum(told.repost[k] for k in day)),
        "earnings_count_1d": float(len(earnings)),
        "earnings_sentiment_1d": mean([posts.score[k] for k in earnings]),
        "talk_count_1d": float(len(talk)),
        "talk_sentiment_1d": mean([posts.score[k] for k in talk]),
        "hours_since_event": (at - posts.known[week[-1]]) / HOUR if week else math.nan,
        "hours_since_earnings": (at - posts.known[about[-1]]) / HOUR if about else math.nan,
    }


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def surprising(x: float, history: list[float], least: float, enough: int) -> float:
    """How far a value is from its history in the deviations of that, of which there have to be enough."""
    there = [value for value in history if not math.isnan(value)]
    if len(there) < enough or math.isnan(x):
        return math.nan
    return (x - math.fsum(there) / len(there)) / max(statistics.stdev(there), least)


def cross_v1_found(folder: Path) -> dict[str, Found]:
    """Beside pandas, day by day over 44 stocks without splits or dividends."""
    days = days_of(folder).sort_values(["instrument_id", "ts"], ignore_index=True)
    made = compute(SHIPPED["cross_v1"], days, timeframe="1d").to_pandas()
    with np.errstate(all="ignore"):
        theirs = cross_v1_of_pandas(days)
    return {name: beside(made[name], theirs[name], name, failures(made)) for name in SHIPPED["cross_v1"].features}


def cross_v1_of_pandas(f: pd.DataFrame) -> dict[str, pd.Series]:
    """The definitions of the features, `x` and `n` as in the papers; windows in long doubles."""
    each = f.instrument_id

    def lag(x: pd.Series, n: int) -> pd.Series:
        return x.groupby(each).shift(n)

    def rank(x: pd.Series) -> pd.Series:
        return x.where(np.isfinite(x)).groupby(f.ts).rank(pct=True)

    def over(n: int, function: Callable[..., Floats], *columns: pd.Series) -> pd.Series:
        made = [window_by_window(n, function, *(x[rows].to_numpy() for x in columns)) for rows in each.groupby(each).groups.values()]
        return pd.Series(np.concatenate(made), f.index)

    def deviation(w: Floats) -> Floats:
        return w.std(axis=1, ddof=1)

    c, o, v = f.close, f.open, f.volume.astype(float)
    ret, change = c / lag(c, 1) - 1, c - lag(c, 1)
    strongest = c.where(ret >= 0, over(20, deviation, ret)).where(ret.notna())
    weekly = over(5, lambda w: w.sum(axis=1), o) * over(5, lambda w: w.sum(axis=1), ret)
    steady = (over(4, lambda w: w.min(axis=1), change) > 0) | (over(4, lambda w: w.max(axis=1), change) < 0)
    known = over(4, lambda w: w.sum(axis=1), change).notna()
    return {
        "momentum_12_1": rank(lag(c, 21) / lag(c, 252) - 1),
        "reversal_5": rank(1 - c / lag(c, 5)),
        "low_volatility_60": rank(-over(60, deviation, ret)),
        "excess_1": ret - ret.groupby(f.ts).transform("mean"),
        "alpha_1": rank(over(5, lambda w: w.argmax(axis=1), strongest * strongest)) - 0.5,
        "alpha_2": -over(6, corr, rank(np.log(v / lag(v, 2))), rank((c - o) / o)),
        "alpha_3": -over(10, corr, rank(o), rank(v)),
        "alpha_4": -over(9, last_rank, rank(f.low)),
        "alpha_8": -rank(weekly - lag(weekly, 10)),
        "alpha_10": rank(change.where(steady, -change).where(known)),
    }


def window_by_window(n: int, function: Callable[..., Floats], *columns: Floats) -> Floats:
    """A function of whole windows; missing where one of their values is."""
    found = rolled(function, n, *map(str, range(len(columns))))({str(k): x for k, x in enumerate(columns)})
    whole = pd.Series(sum(np.isnan(x).astype(float) for x in columns)).rolling(n).sum() == 0
    return np.where(whole, found, np.nan)


def last_rank(w: Floats) -> Floats:
    """The rank of the newest value of each window as a share; those that tie share the mean of theirs."""
    newest = w[:, -1:]
    return ((w < newest).sum(axis=1) + ((w == newest).sum(axis=1) + 1) / 2) / w.shape[1]


def alpha360_found(folder: Path) -> dict[str, Found]:
    """Beside Qlib's definitions in pandas; the typical price stands for the volume-weighted one."""
    found: dict[str, Found] = {}
    for _, table in series(folder):
        t = {name: pd.Series(column) for name, column in table.items()}
        priced = {
            "CLOSE": t["close"],
            "OPEN": t["open"],
            "HIGH": t["high"],
            "LOW": t["low"],
            "VWAP": (t["high"] + t["low"] + t["close"]) / 3,
        }
        theirs = {f"{name}{k}": priced[name].shift(k) / t["close"] for name in PRICES for k in range(DAYS)}
        theirs |= {f"VOLUME{k}": t["volume"].shift(k) / (t["volume"] + TINY) for k in range(DAYS)}
        for name, expression in SHIPPED["alpha360"].features.items():
            ours = np.array([np.nan if v is None else v for v in tried(expression, **table)])
            one = beside(ours, theirs[name], name)
            found[name] = found[name] | one if name in found else one
    return found


@dataclass(frozen=True)
class SetOracle:
    """Who else computes a set, what is found of its features, and how large a difference may be."""

    source: str
    found: Callable[[Path], Mapping[str, Found]]
    bound: float = FINITE


SETS: dict[str, SetOracle] = {
    "fs_v1": SetOracle("the golden files of a plain program", fs_v1_found),
    "fs_v2": SetOracle("NumPy, long doubles, and plain Python", fs_v2_found),
    "cross_v1": SetOracle("pandas", cross_v1_found),
    "alpha360": SetOracle("pandas, Qlib's definitions", alpha360_found, EXACT),
}
"""The sets that have no table of their own elsewhere."""


def set_differences(folder: Path) -> Iterator[tuple[str, str, float, float, int]]:
    """Of each set and feature: the largest difference, how large it may be, and of how many values."""
    for version, oracle in SETS.items():
        for name, found in oracle.found(folder).items():
            yield version, name, found.difference, oracle.bound, found.values
