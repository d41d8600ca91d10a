"""The classic leaks, planted: as functions over data frames, and as operators that break their word. Beside each its honest twin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import polars as pl

from asof.jobs.leakcheck import Checkable
from asof.operators import Operator, Shape
from asof.operators.operator import window


@dataclass(frozen=True)
class Planted:
    """A leak, the checks of which one must find it, and how the finding names it."""

    subject: Checkable
    checks: frozenset[str]
    means: str
    frame: str = "pandas"


AHEAD = frozenset(["truncated", "changed", "shuffled"])


def by_instrument(bars: pd.DataFrame, feature: Callable[[pd.DataFrame], pd.Series]) -> pd.DataFrame:
    """`x` of each instrument by itself."""
    parts = [group[["instrument_id", "ts"]].assign(x=feature(group)) for _, group in bars.groupby("instrument_id")]
    return pd.concat(parts)


def negative_lag(bars: pd.DataFrame) -> pd.DataFrame:
    return by_instrument(bars, lambda one: one.close.shift(-1) / one.close - 1)


def centred_window(bars: pd.DataFrame) -> pd.DataFrame:
    return by_instrument(bars, lambda one: one.close.rolling(5, center=True).mean())


def normalised_by_the_whole_series(bars: pd.DataFrame) -> pd.DataFrame:
    return by_instrument(bars, lambda one: (one.close - one.close.mean()) / one.close.std())


def week_labelled_left(bars: pd.DataFrame) -> pd.DataFrame:
    """The week's last close under the week's first day, carried forward to its days."""

    def feature(one: pd.DataFrame) -> pd.Series:
        weekly = one.set_index("ts").close.resample("W-MON", label="left", closed="left").last()
        return weekly.reindex(one.ts, method="ffill").set_axis(one.index)

    return by_instrument(bars, feature)


def week_labelled_right(bars: pd.DataFrame) -> pd.DataFrame:
    """The same, under the day on which the week is over."""

    def feature(one: pd.DataFrame) -> pd.Series:
        weekly = one.set_index("ts").close.resample("W-MON", label="right", closed="left").last()
        return weekly.reindex(one.ts, method="ffill").set_axis(one.index)

    return by_instrument(bars, feature)


def open_month(bars: pl.DataFrame) -> pl.DataFrame:
    """The close of the month that each day is in, merged while the month is still open."""
    day = bars.with_columns(month=pl.col("ts").dt.truncate("1mo"))
    month = day.group_by("instrument_id", "month").agg(x=pl.col("close").last())
    return day.join(month, on=["instrument_id", "month"]).select("instrument_id", "ts", "x")


def closed_month(bars: pl.DataFrame) -> pl.DataFrame:
    """The close of the month before."""
    day = bars.with_columns(month=pl.col("ts").dt.truncate("1mo"))
    month = day.group_by("instrument_id", "month").agg(x=pl.col("close").last())
    month = month.with_columns(pl.col("month").dt.offset_by("1mo"))
    return day.join(month, on=["instrument_id", "month"], how="left").select("instrument_id", "ts", "x")


def news(bars: pd.DataFrame, events: pd.DataFrame, time: str) -> pd.DataFrame:
    scored = events[["instrument_id", time, "score"]].rename(columns={time: "ts"}).dropna().sort_values("ts")
    found = pd.merge_asof(bars[["instrument_id", "ts"]].sort_values("ts"), scored, on="ts", by="instrument_id")
    return found.rename(columns={"score": "x"})


def news_by_event_time(bars: pd.DataFrame, events: pd.DataFrame) -> pd.DataFrame:
    return news(bars, events, "event_time_utc")


def news_by_arrival(bars: pd.DataFrame, events: pd.DataFrame) -> pd.DataFrame:
    return news(bars, events, "enriched_at_utc")


def filled_backward(bars: pd.DataFrame) -> pd.DataFrame:
    return by_instrument(bars, lambda one: one.close.bfill())


def filled_forward(bars: pd.DataFrame) -> pd.DataFrame:
    return by_instrument(bars, lambda one: one.close.ffill(limit=3))


def interpolated(bars: pd.DataFrame) -> pd.DataFrame:
    return by_instrument(bars, lambda one: one.close.interpolate())


def endless_average(bars: pd.DataFrame) -> pd.DataFrame:
    return by_instrument(bars, lambda one: one.close.ewm(span=20, adjust=False).mean())


def half_filled_window(bars: pd.DataFrame) -> pd.DataFrame:
    return by_instrument(bars, lambda one: one.close.rolling(20, min_periods=1).mean())


def running_total_of_news(bars: pd.DataFrame, events: pd.DataFrame) -> pd.DataFrame:
    counted = events.sort_values("enriched_at_utc").assign(score=lambda frame: frame.groupby("instrument_id").cumcount() + 1.0)
    return news(bars, counted, "enriched_at_utc")


def lag_across_instruments(bars: pd.DataFrame) -> pd.DataFrame:
    return bars[["instrument_id", "ts"]].assign(x=bars.close.shift(1))


def lag(bars: pd.DataFrame) -> pd.DataFrame:
    return by_instrument(bars, lambda one: one.close.shift(1))


def whole_frame(bars: pd.DataFrame) -> pd.DataFrame:
    """All columns are handed on, one is new, and the warm-up is dropped."""
    ret = bars.groupby("instrument_id").close.pct_change(fill_method=None)
    return bars.assign(rising=ret > 0, side=np.where(ret > 0, "up", "down"), ret=ret).dropna(subset=["ret"])


def rolling_mean(bars: pd.DataFrame) -> pd.DataFrame:
    return by_instrument(bars, lambda one: one.close.rolling(20).mean())


class Remembers:
    """A counter that lives from call to call."""

    __name__ = "remembers"

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, bars: pd.DataFrame) -> pd.DataFrame:
        self.calls += 1
        return bars[["instrument_id", "ts"]].assign(x=bars.close + self.calls)


def next_value(out, x, n):
    """The value one bar ahead."""
    out[len(x) - 1 :] = np.nan
    for i in range(len(x) - 1):
        out[i] = x[i + 1]


def total_so_far(out, x, n):
    """The sum of all values so far, though it says `n`."""
    total = 0.0
    for i in range(len(x)):
        total += x[i] if x[i] == x[i] else 0.0
        out[i] = total


def sum_onto_what_was_there(out, x, n):
    """A value with whatever the last computation left in its room on top: state that nobody declared."""
    for i in range(len(x)):
        out[i] = x[i] + 0.5 * out[i]


def planted_operator(kernel: Callable[..., None]) -> Operator:
    return Operator(kernel.__name__, Shape.RAW, kernel, params=(window(),))


LEAKS = {
    "negative lag": Planted(negative_lag, AHEAD, "looks ahead"),
    "centred window": Planted(centred_window, AHEAD, "looks ahead"),
    "whole-series normalising": Planted(normalised_by_the_whole_series, AHEAD, "looks ahead"),
    "resample labelled left": Planted(week_labelled_left, AHEAD, "looks ahead"),
    "merge on the open month": Planted(open_month, AHEAD, "looks ahead", "polars"),
    "event joined by event time": Planted(news_by_event_time, frozenset(["late"]), "uses what had not arrived"),
    "backward fill": Planted(filled_backward, AHEAD, "looks ahead"),
    "interpolation": Planted(interpolated, AHEAD, "looks ahead"),
    "endless exponential average": Planted(endless_average, frozenset(["start"]), "depends on the start"),
    "half-filled window": Planted(half_filled_window, frozenset(["start"]), "depends on the start"),
    "running total of events": Planted(running_total_of_news, frozenset(["start"]), "depends on the start"),
    "lag across instruments": Planted(lag_across_instruments, frozenset(["instrument"]), "depends on other instruments"),
    "function with a memory": Planted(Remembers(), frozenset(["again"]), "answers otherwise when asked again"),
    "operator that looks ahead": Planted(planted_operator(next_value), AHEAD, "looks ahead"),
    "operator that reaches too far": Planted(planted_operator(total_so_far), frozenset(["start"]), "depends on the start"),
    "operator with global state": Planted(
        planted_operator(sum_onto_what_was_there), frozenset(["threads"]), "depends on how the work is split"
    ),
}
"""Every planted leak by its name."""

HONEST: dict[str, tuple[Checkable, str]] = {
    "lag": (lag, "pandas"),
    "rolling mean": (rolling_mean, "pandas"),
    "resample labelled right": (week_labelled_right, "pandas"),
    "merge on the closed month": (closed_month, "polars"),
    "event joined by arrival": (news_by_arrival, "pandas"),
    "forward fill": (filled_forward, "pandas"),
    "the whole frame": (whole_frame, "pandas"),
}
"""Their honest twins."""

__all__ = ["HONEST", "LEAKS", "Planted"]
