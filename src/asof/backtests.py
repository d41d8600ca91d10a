"""Backtests over a store: a walk through time that sees what was known, and bars with the features known at their opens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from asof.errors import DataError, DefinitionError, NotFound, did_you_mean
from asof.feature_store import FeatureStore, Sets, Time
from asof.features.feature_set import FeatureSet
from asof.jobs import reading
from asof.jobs.ages import Age
from asof.jobs.timeline import Ints
from asof.jobs.walk import EPOCH, Block, Moments, Walk
from asof.records import BARS, Frame, floats, micros
from asof.records import UTC as TIMES
from asof.stores.store import BARS_TABLE, Selection
from asof.timeframes import duration
from asof.timeframes import timeframe as timeframe_micros

CLOCK = "clock"
"""`known_at` of a walk that sees at each moment what the store knew then."""
PRICES = ("open", "high", "low", "close", "volume")
FILLS = ("open", "next_open")
"""The moments that a bar's features can be those of."""


class Vector(Mapping[str, "float | None"]):
    """One stored vector: features by name, None where missing; with `ts`, `available_at` and `quality_flags`."""

    __slots__ = ("_row", "_shown")

    def __init__(self, shown: _Shown, row: int) -> None:
        self._shown, self._row = shown, row

    def __getitem__(self, feature: str) -> float | None:
        if feature not in self._shown.features:
            raise NotFound(f"the walk has no feature {feature!r}{did_you_mean(feature, self._shown.features)}")
        value = float(self._shown.values(feature)[self._row])
        return None if value != value else value  # noqa: PLR0124  # NaN alone differs from itself

    def __contains__(self, feature: object) -> bool:
        return feature in self._shown.features

    def __iter__(self) -> Iterator[str]:
        return iter(self._shown.features)

    def __len__(self) -> int:
        return len(self._shown.features)

    @property
    def ts(self) -> datetime:
        """The open of its bar."""
        return moment(int(self._shown.times("ts")[self._row]))

    @property
    def available_at(self) -> datetime:
        """When it could be known."""
        return moment(int(self._shown.times("available_at")[self._row]))

    @property
    def quality_flags(self) -> tuple[str, ...]:
        """The flags that are raised."""
        return tuple(self._shown.flags[self._row].as_py() or ())

    def __repr__(self) -> str:
        return f"<Vector of {self.ts.isoformat()}: {dict(self)}>"


class Step(Mapping[str, Vector]):
    """One moment of a walk, `at`, and the newest vector of each instrument that had one by then.

    `step["ALFA"]` raises `KeyError` where none was known yet, `step.get("ALFA")` is None then; `NotFound` for an instrument that the
    walk is not about.
    """

    __slots__ = ("_place", "_shown", "at")

    def __init__(self, shown: _Shown, place: int, at: datetime) -> None:
        self._shown, self._place, self.at = shown, place, at

    def __getitem__(self, instrument: str) -> Vector:
        if (number := self._shown.numbers.get(instrument)) is None:
            raise NotFound(f"the walk is not about {instrument!r}{did_you_mean(str(instrument), list(self._shown.numbers))}")
        if (row := int(self._shown.block.rows[self._place, number])) < 0:
            raise KeyError(instrument)
        return Vector(self._shown, row)

    def __iter__(self) -> Iterator[str]:
        rows = self._shown.block.rows[self._place]
        return (name for name, number in self._shown.numbers.items() if rows[number] >= 0)

    def __len__(self) -> int:
        return int((self._shown.block.rows[self._place] >= 0).sum())

    @property
    def instruments(self) -> tuple[str, ...]:
        """All that the walk is about, also those without a vector."""
        return tuple(self._shown.numbers)

    @property
    def fresh(self) -> tuple[str, ...]:
        """The instruments whose vector is another one than at the step before, or which have none any more."""
        fresh = self._shown.block.fresh[self._place]
        return tuple(name for name, number in self._shown.numbers.items() if fresh[number])

    def to_arrow(self) -> pa.Table:
        """All instruments of the walk with their vectors, nulls where there is none: what a join as of this moment gives."""
        found = taken(self._shown.block, self._shown.block.rows[self._place], self._shown.features)
        names = pa.array(self._shown.numbers, pa.string())
        at = pa.array([self.at] * len(names), TIMES)
        return pa.table([names, at, *found.columns], names=["instrument_id", "event_timestamp", *found.column_names])

    def __repr__(self) -> str:
        return f"<Step {self.at.isoformat()}: {len(self)} of {len(self._shown.numbers)} instruments>"


@dataclass(frozen=True)
class _Shown:
    """A block of a walk, whose columns become numbers when they are first looked at."""

    block: Block
    numbers: Mapping[str, int]
    features: tuple[str, ...]

    @cached_property
    def _columns(self) -> dict[str, np.ndarray]:
        return {}

    def values(self, feature: str) -> np.ndarray:
        """A feature of all rows, NaN where missing."""
        if feature not in self._columns:
            self._columns[feature] = floats(self.block.vectors[feature])
        return self._columns[feature]

    def times(self, name: str) -> np.ndarray:
        """A time of all rows in microseconds."""
        if name not in self._columns:
            self._columns[name] = micros(self.block.vectors[name])
        return self._columns[name]

    @cached_property
    def flags(self) -> pa.ChunkedArray:
        """The flags of all rows."""
        return self.block.vectors["quality_flags"]


def iter_asof(
    store: FeatureStore,
    features: Sets | Iterable[str],
    timeframe: str,
    start: Time = None,
    end: Time = None,
    *,
    every: str | timedelta | None = None,
    at: Iterable[datetime | str] | None = None,
    instruments: Iterable[str] | None = None,
    known_at: Time = CLOCK,
) -> Iterator[Step]:
    """Walk time over the stored vectors: at each step, of each instrument, the newest vector that was available and known by then.

    Each step is what `get_historical_features` gives for its moment, with `known_at` the moment itself. The steps are those moments of
    `[start, end]` at which the newest vector of any instrument becomes another one, the first at `start` if something is known by then; or
    one each `every` (`"1h"`, a `timedelta`) from `start` on; or the moments `at`, ascending, and then without `start` and `end`.

    `features` is a feature set (`"fs_v1"`) or some of one (`["fs_v1:ret_1"]`), `instruments` by default those that have bars.
    `known_at=None` sees the newest revisions instead, though they were learned later (a store that was filled in one backfill knew nothing
    before it), and a time those of that time.

    Rows are read in slices, so that memory does not grow with the time walked over. Raises `NotFound` where nothing was known by the end,
    and for names that are not there, `DataError` for times that are naive, turned round or not ascending, `DefinitionError` for an `every`
    that is no duration.
    """
    chosen, names = wanted(store, features)
    walk = walk_of(store, chosen, names, timeframe, moments_of(start, end, every, at), instruments, known_at)
    numbers = {name: number for number, name in enumerate(walk.instruments)}
    return _steps(walk, numbers)


def _steps(walk: Walk, numbers: Mapping[str, int]) -> Iterator[Step]:
    for block in walk.blocks():
        shown = _Shown(block, numbers, walk.features)
        for place, at in enumerate(block.moments.tolist()):
            yield Step(shown, place, moment(at))


def aligned(
    store: FeatureStore,
    features: Sets | Iterable[str],
    timeframe: str,
    *,
    start: Time = None,
    end: Time = None,
    instruments: Iterable[str] | None = None,
    fill: str = "open",
    known_at: Time = CLOCK,
    max_age: timedelta | str | None = None,
) -> Frame:
    """The stored bars that open in `[start, end]`, each with the features that were known when an order could be filled.

    With `fill="open"` that is the open of the bar itself: the features of the bars that have closed, beside the price to trade at. With
    `fill="next_open"` it is the open of the instrument's next bar, for engines that ask at a bar's close and fill at the next open; of the
    last bar, its open and a timeframe. The moment is the column `as_of`; `vector_ts`, `available_at` and `quality_flags` say which vector
    was found. Nulls where none was known yet, or where it is older than `max_age`, as in `get_historical_features`.

    `known_at` is as in `iter_asof`; prices are the newest, or those held at that time if it is one. By instrument and time. Raises as
    `iter_asof` does, and `DataError` where a feature is called like a column of bars.
    """
    chosen, names = wanted(store, features)
    if clash := sorted({*names} & {*PRICES, "as_of", "vector_ts"}):
        raise DataError(f"bars have {', '.join(clash)} already: name the features to take without it, such as '{chosen.version}:other'")
    if fill not in FILLS:
        raise DefinitionError(f"fill={fill!r} is neither 'open' nor 'next_open'{did_you_mean(str(fill), list(FILLS))}")
    listed = None if instruments is None else tuple(instruments)
    _, selection = store.select(chosen, timeframe, listed, start, end, None if known_at == CLOCK else known_at)
    columns = ("instrument_id", "ts", *PRICES)
    bars = pa.concat_tables([pa.schema([BARS.field(n) for n in columns]).empty_table(), *store.store.read(BARS_TABLE, selection, columns)])
    if not len(bars):
        raise NotFound(f"{store.store.url} has no {timeframe} bars of these instruments in this time: nothing to align to")
    moments = micros(bars["ts"]) if fill == "open" else _next_opens(bars, timeframe)
    walk = walk_of(store, chosen, names, timeframe, Moments.at(np.unique(moments)), listed, known_at)
    found = _found(walk, bars["instrument_id"], moments)
    as_of = pa.array(moments, pa.int64()).cast(TIMES)
    if max_age is not None:
        keys = pa.table({"instrument_id": bars["instrument_id"], "event_timestamp": as_of})
        found = reading.without_old(found, keys, Age.of(max_age), store.calendars)
    marked = found.rename_columns(["vector_ts" if name == "ts" else name for name in found.column_names])
    made = bars.append_column("as_of", as_of)
    for name in marked.column_names:
        made = made.append_column(name, marked[name])
    return Frame(made)


def _next_opens(bars: pa.Table, timeframe: str) -> Ints:
    """For each bar the open of the next of its instrument, by instrument and time; of the last, when its timeframe is over."""
    ts, names = micros(bars["ts"]), bars["instrument_id"]
    after = np.append(ts[1:], 0)
    last = np.append(np.asarray(pc.not_equal(names[1:], names[:-1])), True) if len(ts) > 1 else np.ones(len(ts), np.bool_)
    return np.where(last, ts + timeframe_micros(timeframe), after)


def _found(walk: Walk, instruments: pa.ChunkedArray, moments: Ints) -> pa.Table:
    """The newest vector of an instrument at a moment, for many of them, in their order."""
    numbers = np.asarray(pc.index_in(instruments, pa.array(walk.instruments, pa.string()))).astype(np.int64)
    parts, places = [], []
    for block in walk.blocks():
        mine = np.flatnonzero((moments >= block.moments[0]) & (moments <= block.moments[-1]))
        rows = block.rows[np.searchsorted(block.moments, moments[mine]), numbers[mine]]
        parts.append(taken(block, rows, walk.features))
        places.append(mine)
    return pa.concat_tables(parts).take(pa.array(np.argsort(np.concatenate(places))))


def changes(
    store: FeatureStore,
    features: Sets | Iterable[str],
    timeframe: str,
    start: Time,
    end: Time,
    *,
    instruments: Iterable[str] | None = None,
    known_at: Time = CLOCK,
) -> Iterator[pa.Table]:
    """The walk of `iter_asof` as tables: each vector of an instrument that becomes its newest, from `as_of` on until the next.

    Columns: `as_of`, `instrument_id`, the features, `ts`, `available_at`, `quality_flags`, ordered by `as_of`, then by instrument as they
    were named. Where what was known was taken away and nothing is left, all but the first two are null.
    """
    chosen, names = wanted(store, features)
    walk = walk_of(store, chosen, names, timeframe, moments_of(start, end, None, None), instruments, known_at)
    return _changes(walk)


def _changes(walk: Walk) -> Iterator[pa.Table]:
    for block in walk.blocks():
        place, number = np.nonzero(block.fresh)
        found = taken(block, block.rows[place, number], walk.features)
        as_of = pa.array(block.moments[place], pa.int64()).cast(TIMES)
        of = pa.array(walk.instruments, pa.string()).take(pa.array(number))
        yield pa.table([as_of, of, *found.columns], names=["as_of", "instrument_id", *found.column_names])


def taken(block: Block, rows: Ints, features: tuple[str, ...]) -> pa.Table:
    """Rows of a block's vectors: features, `ts`, `available_at` and `quality_flags`; nulls for -1."""
    return block.vectors.select([*features, *reading.MARKS]).take(pa.array(rows, mask=rows < 0))


def wanted(store: FeatureStore, features: Sets | Iterable[str]) -> tuple[FeatureSet, tuple[str, ...]]:
    """A registered feature set, and which of its features. Raises `DataError` where `store` is no opened store."""
    if not isinstance(store, FeatureStore):
        raise DataError(f"{store!r} is not an opened store: with asof.connect(url) as store: ...")
    return store.wanted(features)


def walk_of(
    store: FeatureStore,
    feature_set: FeatureSet,
    features: tuple[str, ...],
    timeframe: str,
    moments: Moments,
    instruments: Iterable[str] | None,
    known_at: Time,
) -> Walk:
    """A walk, held to what there is: its names are known, and something of them was known by its end."""
    follows = known_at == CLOCK
    _, selection = store.select(feature_set, timeframe, instruments, None, None, None if follows else known_at)
    last = moment(moments.end)
    names = _instruments(store, selection, last if follows else selection.known_at)
    walk = Walk(store.store, feature_set, timeframe, names, features, moments, selection.known_at, follows)
    walk.check()
    return walk


def _instruments(store: FeatureStore, selection: Selection, known_at: datetime | None) -> tuple[str, ...]:
    """The instruments of a walk: those named, or those that have bars now or had them then."""
    spans = [store.store.spans(selection.timeframe, then) for then in {None, known_at}]
    there = sorted({name for found in spans for name in found["instrument_id"].to_pylist()})
    if selection.instruments is None:
        return tuple(there)
    if strange := [name for name in selection.instruments if name not in there]:
        raise NotFound(f"{store.store.url} has no {selection.timeframe} bars of {strange[0]!r}{did_you_mean(str(strange[0]), there)}")
    return tuple(dict.fromkeys(selection.instruments))


def moments_of(start: Time, end: Time, every: str | timedelta | None, at: Iterable[datetime | str] | None) -> Moments:
    """The moments of a walk, checked. Raises `DataError` and `DefinitionError` as `iter_asof` does."""
    if at is not None:
        if start is not None or end is not None or every is not None:
            raise DataError("at= names the moments of the walk: leave out start, end and every")
        given = np.fromiter((_micros(value, f"at[{place}]") for place, value in enumerate(at)), np.int64)
        if not len(given):
            raise DataError("at= names no moment: a walk needs one or more")
        if (back := np.flatnonzero(np.diff(given) <= 0)).size:
            place = int(back[0]) + 1
            raise DataError(f"at[{place}] {moment(int(given[place])).isoformat()} is not after the moment before it: give them ascending")
        return Moments.at(given)
    if start is None or end is None:
        raise DataError("a walk needs start and end, such as start='2024-01-01', end='2024-06-30', or its moments in at=")
    first, last = _micros(start, "start"), _micros(end, "end", through=True)
    if first > last:
        raise DataError(f"start {moment(first).isoformat()} is after end {moment(last).isoformat()}")
    return Moments(first, last, 0 if every is None else _length(every))


def _length(every: str | timedelta) -> int:
    length = every // timedelta.resolution if isinstance(every, timedelta) else duration(every)
    if length <= 0:
        raise DefinitionError(f"every={every!r} is not above 0: a walk goes forward")
    return length


def _micros(value: datetime | str, what: str, *, through: bool = False) -> int:
    if not isinstance(value, datetime | str):
        raise DataError(f"{what} {value!r} is not a time such as '2024-01-31T14:30:00Z' or a datetime with its zone")
    read = partial(reading.parse_time, what=what, through=through)
    aware = value if isinstance(value, datetime) and value.tzinfo else read(value if isinstance(value, str) else value.isoformat())
    return (aware.astimezone(UTC) - EPOCH) // timedelta.resolution


def moment(microseconds: int) -> datetime:
    """A time from microseconds since 1970."""
    return EPOCH + timedelta(microseconds=microseconds)


__all__ = ["CLOCK", "Step", "Vector", "aligned", "changes", "iter_asof"]
