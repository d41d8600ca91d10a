"""The operators over points beside plain Python, on real posts of 43 stocks; plain definitions are those of `tests/operator_cases.py`."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from asof import FeatureSet, compute, events
from asof.features.expression import Expr
from asof.operators import EVENT_SHAPES, FORMS, POINT_SHAPES, Operator
from asof.timeframes import UNITS
from tests.operator_cases import CASES, Answer, called
from tests.oracles import EXACT, FINITE

HOUR, DAY = UNITS["h"], UNITS["d"]
SPAN = pd.Timestamp("2014-06-01", tz="UTC"), pd.Timestamp("2014-08-01", tz="UTC")
"""The bars that are computed; posts from before are there, too."""
NEWS, NEWEST, SEEN = events.window("1d"), events.last(1, within="1d"), events.window("6h")
ON_POINTS: tuple[Operator, ...] = tuple(o for o in FORMS if o.shape in (*EVENT_SHAPES, *POINT_SHAPES))
CHOICE = {"ddof": 1, "half_life": 6 * HOUR, "n": 5, "within": 2 * HOUR}
"""The parameters that operators are tried with."""


@dataclass(frozen=True)
class Posts:
    """The posts of one stock in the order in which they became known."""

    known: list[int]
    score: list[float]
    confidence: list[float]
    skew: list[float]

    def window(self, end: int, length: int) -> range:
        """Those of a window that ends at the open of a bar, both ends included."""
        return range(bisect_left(self.known, end - length), bisect_right(self.known, end))


@cache
def posts_of(folder: Path) -> pd.DataFrame:
    """The posts, one row for each stock that they name, in the order in which they became known, then by their ids."""
    posts = pd.read_parquet(folder / "events" / "stocknet_events.parquet").explode("tickers")
    posts = posts.assign(score=posts.sentiment.str["score"], confidence=posts.sentiment.str["confidence"])
    posts = posts.rename(columns={"tickers": "instrument_id"})
    return posts.sort_values(["enriched_at_utc", "event_id"], kind="stable", ignore_index=True)


@cache
def days_of(folder: Path) -> pd.DataFrame:
    prices = pd.read_parquet(folder / "daily" / "stocknet_prices.parquet")
    return prices.rename(columns={"ticker": "instrument_id", "ts_open_utc": "ts"})


def micros(times: pd.Series) -> list[int]:
    return (times.astype("datetime64[us, UTC]").astype("int64")).tolist()


def of_stock(posts: pd.DataFrame) -> Posts:
    known, happened = micros(posts.enriched_at_utc), micros(posts.event_time_utc)
    skew = [max(0, h - k) for h, k in zip(happened, known, strict=True)]
    return Posts(known, posts.score.tolist(), posts.confidence.tolist(), list(map(float, skew)))


def numbers(operator: Operator) -> tuple[float, ...]:
    return tuple(p.kind(CHOICE[p.name]) for p in operator.params)


def expression(operator: Operator) -> Expr:
    """What an operator is tried as: on the scores of a day, weighted by confidence, and of those that are not 0; or of the newest post."""
    if operator.shape in EVENT_SHAPES:
        second = NEWS.time if operator.name.startswith("fading") else NEWS.confidence
        return called(operator, (NEWS.sentiment, second), numbers(operator), NEWS.sentiment != 0 if operator.chosen else None)
    if operator.name == "at":
        return called(operator, (SEEN.sentiment, NEWEST.present), ()).last()
    return called(operator, (NEWEST.sentiment,), numbers(operator)).last()


def wanted(operator: Operator, posts: Posts, end: int) -> tuple[Answer, float]:
    """What plain Python makes of the posts at the open of a bar, and what differences are parts of."""
    inside = [k for k in posts.window(end, DAY) if not operator.chosen or posts.score[k] != 0]
    if operator.shape in EVENT_SHAPES:
        case = CASES[operator.key.replace(".where", "").replace(f"/{len(operator.inputs)}", f"/{len(operator.values)}")]
        second = posts.known if operator.name.startswith("fading") else posts.confidence
        lists = [[column[k] for k in inside] for column in (posts.score, second)][: len(operator.values)]
        if len(inside) < operator.minimum:
            return None, 1.0
        args = (*lists, *numbers(operator))
        try:
            answer = case.oracle(*args)
        except ZeroDivisionError:
            return None, 1.0
        return answer, case.scale(*args) if case.scale and answer is not None else abs(answer or 1.0)
    if not inside:
        return None, 1.0
    last = inside[-1]
    past = slice(0, last + 1)
    if operator.name == "at":
        return CASES[operator.key].oracle(posts.score[past], posts.known[past], posts.known[last], 6 * HOUR), 1.0
    return CASES[operator.key].oracle(posts.score[past], posts.known[past], *numbers(operator)), 1.0


def point_differences(folder: Path) -> Iterator[tuple[str, float, float, int]]:
    """Of each operator over points: its largest difference from plain Python, how large it may be, and of how many values."""
    days = days_of(folder)
    days, posts = days[(days.ts >= SPAN[0]) & (days.ts < SPAN[1])], posts_of(folder)
    made = compute(FeatureSet("points", {f"x{k}": expression(o) for k, o in enumerate(ON_POINTS)}), days, posts, timeframe="1d").to_pandas()
    stocks = {name: of_stock(of) for name, of in posts.groupby("instrument_id")}
    rows = [(stocks[n], end) for n, end in zip(made.instrument_id, micros(made.ts), strict=True) if n in stocks]
    made = made[made.instrument_id.isin(stocks)]
    for k, operator in enumerate(ON_POINTS):
        ours, apart, values = made[f"x{k}"].to_numpy(np.float64), 0.0, 0
        for value, (stock, end) in zip(ours.tolist(), rows, strict=True):
            theirs, unit = wanted(operator, stock, end)
            assert (theirs is None) == math.isnan(value), f"{operator.key}: {value} where plain Python has {theirs}"
            if theirs is not None:
                apart, values = max(apart, abs(value - theirs) / (unit or 1.0)), values + 1
        yield operator.key, apart, bound(operator), values


def bound(operator: Operator) -> float:
    key = operator.key.replace(".where", "").replace(f"/{len(operator.inputs)}", f"/{len(operator.values)}")
    return EXACT if CASES[key].bits else FINITE
