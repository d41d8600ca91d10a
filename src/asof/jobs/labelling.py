"""Labels of bars: what the engine computes of every bar, looked up some bars ahead.

1. `inputs_of` makes a feature set of the expressions that the labels need; its vectors come from `asof.compute` or a store, as all do.
2. `labelled` goes through the vectors of each instrument: `_ahead` takes the value some bars later, `_barriers` follows the path.
3. A label is known when the last bar that it needs is: `<label>_until`; `label_from` is when its own bar could be known, `label_until` the
   latest of all labels of a row. What is missing has no such time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from asof.engine.panel import Floats, Ints
from asof.errors import DataError
from asof.features.adjustment import FREE, PRICE_FACTOR
from asof.features.expression import BARS, Expr, column
from asof.features.feature_set import FeatureSet
from asof.features.label_set import Ahead, AnyLabel, Barriers, LabelSet
from asof.jobs.compute import compute as compute_features
from asof.records import UTC, VECTOR_KEYS, ArrowStream, Frame, floats, micros

FACTOR = column(PRICE_FACTOR, BARS)
"""What the actions before a bar multiply earlier prices with."""
NEVER = -1
"""The time of what is missing."""

Columns = dict[str, pa.Array]


def compute(
    labels: LabelSet,
    bars: ArrowStream,
    events: ArrowStream | None = None,
    *,
    actions: ArrowStream | None = None,
    higher: Mapping[str, ArrowStream] | None = None,
    timeframe: str | None = None,
    timezone: str | None = None,
    calendars: Mapping[str, str] | None = None,
    threads: int | None = None,
) -> Frame:
    """The labels of bars in memory, one row for each, by instrument and time. The tables are those of `asof.compute`.

    Columns: `instrument_id`, `timeframe` and `ts`, which vectors have too; for each label its value, null where missing, and
    `<label>_until`, when it could be known; `label_from` and `label_until`, the span of all labels of the row. Barriers also have the
    return (`<label>_return`) at the bar that ended them and its `ts` (`<label>_touch`).
    """
    given = {"actions": actions, "higher": higher, "timeframe": timeframe, "timezone": timezone, "calendars": calendars, "threads": threads}
    return Frame(labelled(labels, compute_features(inputs_of(labels), bars, events, **given).table))  # type: ignore[arg-type]


def inputs_of(labels: LabelSet) -> FeatureSet:
    """The feature set of what labels need to know of every bar."""
    return FeatureSet("labels", {f"x{k}": expression for k, expression in enumerate(_expressions(labels))})


def _expressions(labels: LabelSet) -> tuple[Expr, ...]:
    adjusted = any(isinstance(label, Barriers) and label.price.scale != FREE for label in labels.labels.values())
    return (*labels.expressions, *([FACTOR] if adjusted else []))


@dataclass(frozen=True)
class _Series:
    """What is known of the bars, by instrument and time, and for each row the one behind the last of its instrument."""

    values: Mapping[Expr, Floats]
    ts: Ints
    available: Ints
    ends: Ints

    def later(self, n: int) -> tuple[Ints, NDArray[np.bool_]]:
        """The row `n` bars later, and whether there is one; where there is none, the last row of all."""
        at = np.arange(len(self.ts)) + n
        return np.minimum(at, len(self.ts) - 1), at < self.ends


def labelled(labels: LabelSet, vectors: pa.Table) -> pa.Table:
    """The labels of vectors of `inputs_of`, which come by instrument and time."""
    series = _Series(
        {x: floats(vectors[f"x{k}"]) for k, x in enumerate(_expressions(labels))},
        micros(vectors["ts"]),
        micros(vectors["available_at"]),
        _ends(vectors["instrument_id"]),
    )
    made: Columns = {}
    latest = np.full(len(vectors), NEVER)
    for name, label in labels.labels.items():
        columns, until = _columns(label, series)
        latest = np.maximum(latest, until)
        made |= {f"{name}_{more}" if more else name: array for more, array in columns.items()}
    keys = {name: vectors[name] for name in VECTOR_KEYS.names}
    span = {"label_from": vectors["available_at"], "label_until": _times(latest)}
    return pa.table(keys | {name: made[name] for name in labels.columns} | span)


def _ends(instruments: pa.ChunkedArray) -> Ints:
    """For each row the one behind the last of its instrument."""
    codes = np.concatenate([[0], *(np.asarray(c.indices) for c in instruments.dictionary_encode().unify_dictionaries().chunks)])[1:]
    stops = np.append(np.flatnonzero(np.diff(codes)) + 1, len(codes))
    return np.repeat(stops, np.diff(stops, prepend=0))


def _columns(label: AnyLabel, series: _Series) -> tuple[Columns, Ints]:
    """The columns of a label by what they are called behind its name, and when each row's is known."""
    return _ahead(label, series) if isinstance(label, Ahead) else _barriers(label, series)


def _ahead(label: Ahead, series: _Series) -> tuple[Columns, Ints]:
    if not len(series.ts):
        return {"": pa.array([], pa.float64()), "until": pa.array([], UTC)}, series.ts
    at, there = series.later(label.horizon)
    values = np.where(there, series.values[label.value][at], np.nan)
    until = np.where(np.isnan(values), NEVER, series.available[at])
    return {"": _numbers(values), "until": _times(until)}, until


def _barriers(label: Barriers, series: _Series) -> tuple[Columns, Ints]:
    rows = len(series.ts)
    path = _Path.of(label, series)
    answer, ended, known = np.full(rows, np.nan), np.zeros(rows, np.int64), series.available.copy()
    returns, until = np.full(rows, np.nan), np.full(rows, NEVER)
    waiting = path.begun & series.later(label.horizon)[1] if rows else np.zeros(0, np.bool_)
    for k in range(1, label.horizon + 1):
        if not waiting.any():
            break
        at, _ = series.later(k)
        known = np.maximum(known, series.available[at])
        ret, up, down = path.step(at)
        over = up != down if k < label.horizon else ~(up & down)
        done = waiting & ~np.isnan(ret) & over
        answer[done] = (up.astype(np.float64) - down)[done]
        returns[done], ended[done], until[done] = ret[done], at[done], known[done]
        waiting &= ~(done | np.isnan(ret) | (up & down))
    touch = np.where(until == NEVER, NEVER, series.ts[ended] if rows else until)
    return {"": _numbers(answer), "return": _numbers(returns), "touch": _times(touch), "until": _times(until)}, until


@dataclass
class _Path:
    """The way of a price from every bar on, and the barriers that it may touch; `base` is its start as it is seen from the step before."""

    label: Barriers
    values: Mapping[Expr, Floats]
    base: Floats
    upper: Floats
    lower: Floats

    @classmethod
    def of(cls, label: Barriers, series: _Series) -> _Path:
        """The paths before their first step."""
        base = series.values[label.price]
        unit = np.ones(len(base)) if label.volatility is None else series.values[label.volatility]
        return cls(label, series.values, base, label.upper * unit, label.lower * unit)

    @property
    def begun(self) -> NDArray[np.bool_]:
        """Which paths have a start and barriers on both sides of it."""
        there: NDArray[np.bool_] = (self.base > 0) & (self.upper > 0) & (self.lower > 0)
        return there

    def step(self, at: Ints) -> tuple[Floats, NDArray[np.bool_], NDArray[np.bool_]]:
        """At the next bars: the return since the start, missing where the path has a gap, and whether it touches above and below."""
        if self.label.price.scale != FREE:
            self.base = self.base * self.values[FACTOR][at]
        ret, high, low = (self._return(x, at) for x in (self.label.price, self.label.high, self.label.low))
        return np.where(np.isnan(high) | np.isnan(low), np.nan, ret), high >= self.upper, low <= -self.lower

    def _return(self, what: Expr | None, at: Ints) -> Floats:
        with np.errstate(all="ignore"):
            ret: Floats = self.values[self.label.price if what is None else what][at] / self.base - 1
        return ret


def _numbers(values: Floats) -> pa.Array:
    return pa.array(values, from_pandas=True)


def _times(times: Ints) -> pa.Array:
    return pa.array(times, mask=times == NEVER).cast(UTC)


def beside(labels: pa.Table, vectors: pa.Table, columns: tuple[str, ...]) -> pa.Table:
    """Labels with columns of the vectors of the same bars, null where there is none. Both come by instrument and time.

    Raises `DataError` where both have a column of a name.
    """
    if clash := [name for name in columns if name in labels.column_names]:
        raise DataError(f"both the labels and the features have {', '.join(clash)}: rename the label")
    numbered = labels.select(VECTOR_KEYS.names).append_column("row", pa.array(np.arange(len(labels))))
    placed = vectors.select(VECTOR_KEYS.names).append_column("place", pa.array(np.arange(len(vectors))))
    pairs = numbered.join(placed, VECTOR_KEYS.names, join_type="left outer").sort_by("row")
    places = pairs["place"]
    for name in columns:
        labels = labels.append_column(name, pc.take(vectors[name], places))
    return labels
