"""What can be asked for features: a feature set, an operator, or a function of somebody's own over data frames."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from asof.calendars import Calendars
from asof.engine.panel import Column as PointColumn
from asof.engine.panel import Ints
from asof.engine.plan import Plan, plan
from asof.errors import DataError, DefinitionError
from asof.features.feature_set import FeatureSet
from asof.jobs.panels import panel_of, sort_bars, vectors_of
from asof.jobs.points import sort_events
from asof.jobs.worlds import World
from asof.records import Frame, floats, micros, one_chunk
from asof.sources.columns import ColumnMapping, Reader
from asof.stores.store import vectors_table

Column = NDArray[np.float64] | NDArray[np.object_]
"""Numbers, NaN where missing, or texts, None where missing."""

Function = Callable[..., object]
"""`bars` in, or `bars` and `events`, as data frames; a frame with `instrument_id`, `ts` and features out."""

FRAMES: Mapping[str, Callable[[Frame], object]] = {"pandas": Frame.to_pandas, "polars": Frame.to_polars, "arrow": Frame.to_arrow}
"""The data frames that a function may take."""

KEYS = ("instrument_id", "timeframe", "ts")
NAMELESS_INDEX = re.compile(r"__index_level_\d+__")
"""The column that pandas makes of an index without a name."""


@dataclass(frozen=True)
class Grid:
    """The bars of a world, numbered: answers are laid on them, so that two can be compared row by row."""

    instruments: pa.Array
    times: Ints
    numbers: Ints
    """For each instrument (by its place) and time (by its own): the bar's number, or -1 where there is none."""

    @classmethod
    def of(cls, world: World) -> Grid:
        """The bars of a world in their order."""
        found, times = sort_bars(world.bars), np.unique(world.opens)
        numbers = np.full((len(found.instruments), len(times)), -1)
        codes = np.repeat(np.arange(len(found.instruments)), np.diff(found.offsets))
        numbers[codes, np.searchsorted(times, world.opens)] = np.arange(len(world.bars))
        return cls(found.instruments, times, numbers)

    @property
    def rows(self) -> int:
        """How many bars there are."""
        return int(self.numbers.max(initial=-1)) + 1

    def places(self, instruments: pa.ChunkedArray, ts: Ints) -> Ints:
        """The numbers of these bars; -1 for one that is not there."""
        codes = np.asarray(pc.fill_null(pc.index_in(instruments, self.instruments), -1)).astype(np.int64)
        at = np.minimum(np.searchsorted(self.times, ts), len(self.times) - 1)
        there = (codes >= 0) & (self.times[at] == ts)
        return np.where(there, self.numbers[codes, at], -1)


@dataclass(frozen=True)
class Answer:
    """Features on the bars of a grid, missing where there is no row; `available` is from when each may be used, where it says so."""

    columns: Mapping[str, Column]
    available: Ints | None = None


class Subject(Protocol):
    """Something that gives features."""

    @property
    def name(self) -> str:
        """How findings call it."""
        ...

    @property
    def lookback(self) -> int | None:
        """How many bars a row depends on, None where nothing tells."""
        ...

    @property
    def event_window(self) -> int | None:
        """How far back its events reach, in microseconds, None where nothing tells."""
        ...

    @property
    def tolerance(self) -> float:
        """The relative difference that is rounding, where the data begins elsewhere or the work is split."""
        ...

    @property
    def across(self) -> int:
        """How many bars of other instruments a row may depend on; 0 where it looks at no other, or nothing tells."""
        ...

    def answer(self, world: World, grid: Grid) -> Answer:
        """The features of a world."""
        ...

    def on_threads(self, world: World, grid: Grid) -> list[Answer]:
        """The same, several times, on several threads at once."""
        ...


@dataclass(frozen=True)
class SetSubject:
    """A feature set, as the engine computes it."""

    name: str
    feature_set: FeatureSet
    calendars: Calendars
    tolerance: float = 0.0

    @property
    def lookback(self) -> int:
        """It follows from the expressions."""
        return self.feature_set.lookback

    @property
    def event_window(self) -> int:
        """How far back the farthest of its points may be before the open of a bar; those of the market are counted from its close."""
        return max((reach.length for reach in self.feature_set.reaches.values()), default=0)

    @property
    def across(self) -> int:
        """As many as all stages look at, one after the other."""
        nodes = [node for stage in self._plan.stages for node in stage.nodes] if self._plan.crosses else []
        return sum(node.lookback + max(node.looked_at.values(), default=0) for node in nodes) + self.lookback * bool(nodes)

    @property
    def points(self) -> Mapping[str, frozenset[PointColumn]]:
        """The columns of each stream that it looks at."""
        return self._plan.points

    @property
    def adjusted(self) -> bool:
        """Whether splits and dividends change it."""
        return self._plan.adjusted

    @cached_property
    def _plan(self) -> Plan:
        return plan(self.feature_set)

    def answer(self, world: World, grid: Grid, threads: int = 1, rows: int | None = None) -> Answer:
        """Every compared column of its vectors."""
        found, seen = sort_bars(world.bars), sort_events(world.events)
        above = {text: sort_bars(table) for text, table in world.higher.items()}
        given = (world.actions, world.market, above, world.memberships)
        panel = panel_of(self._plan, world.timeframe, found, seen, self.calendars, *given)
        made = (datetime.now(UTC), "leakcheck", threads, self.calendars, rows)
        vectors = vectors_of(self._plan, panel, world.timeframe, found, *made)
        names = vectors_table(self.feature_set).compared
        answer = laid(vectors.select([*KEYS, *names]), grid, self.name)
        available = np.full(grid.rows, np.iinfo(np.int64).max)
        available[grid.places(vectors["instrument_id"], micros(vectors["ts"]))] = micros(vectors["available_at"])
        return Answer(answer.columns, available)

    def on_threads(self, world: World, grid: Grid) -> list[Answer]:
        """In morsels of one bar and of some, on two threads and on four."""
        return [self.answer(world, grid, threads, rows) for threads, rows in ((2, 1), (4, 7))]


@dataclass(frozen=True)
class FunctionSubject:
    """A function over data frames. One with a parameter `events` gets those, too."""

    name: str
    function: Function
    frame: str
    lookback: int | None
    tolerance: float
    event_window: int | None = None
    across: int = 0

    def answer(self, world: World, grid: Grid) -> Answer:
        """What the function makes of the world. Raises `DefinitionError` where it fails, `DataError` where it gives no such table."""
        given = FRAMES[self.frame]
        asked = inspect.signature(self.function).parameters
        named = {name: given(Frame(table)) for name, table in {"events": world.events, **world.market}.items() if name in asked}
        try:
            made = self.function(given(Frame(world.bars)), **named)
        except Exception as error:  # the code of others may raise anything, and is named whatever it is
            about = f"{len(world.bars)} bars and {len(world.events)} events"
            raise DefinitionError(f"{self.name} failed on {about}: {type(error).__name__}: {error}") from error
        if not hasattr(made, "__arrow_c_stream__"):
            raise DataError(f"{self.name} gives {type(made).__name__}: return a data frame with instrument_id, ts and the features")
        return laid(pa.table(made), grid, self.name)

    def on_threads(self, world: World, grid: Grid) -> list[Answer]:
        """Twice at the same time."""
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(lambda _: self.answer(world, grid), range(2)))


def laid(table: pa.Table, grid: Grid, name: str) -> Answer:
    """A table's features on the bars of a grid. Raises `DataError` for a row of no bar, or two of one."""
    reader = Reader(table, ColumnMapping())
    instruments, times = reader.text("instrument_id"), reader.times("ts")
    if reader.refusals.rows:
        raise DataError(f"{name}, row {reader.refusals.rows[0] + 1}: {reader.refusals.details[0]}")
    places = grid.places(instruments, micros(pc.fill_null(times.cast(pa.int64()), -1)))
    counted = np.bincount(places[places >= 0], minlength=grid.rows)
    wrong = np.flatnonzero((places < 0) | (counted[places] > 1))
    if len(wrong):
        row = int(wrong[0])
        what = "two rows for one bar" if places[row] >= 0 else "a row for a bar that it was not given: lay the result on the bars"
        raise DataError(f"{name} gives {what} ({instruments[row].as_py()}, {times[row].as_py()})")
    names = [n for n in table.column_names if n not in KEYS and not NAMELESS_INDEX.fullmatch(n)]
    return Answer({n: _spread(table[n], places, grid.rows, f"{name}: {n}") for n in names})


def _spread(column: pa.ChunkedArray, places: Ints, rows: int, what: str) -> Column:
    """A column with a place for every bar: numbers and truths as numbers, everything else as text."""
    kind = column.type
    if pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind):
        numbers = np.full(rows, np.nan)
        numbers[places] = floats(column.cast(pa.uint8()) if pa.types.is_boolean(kind) else column.cast(pa.float64(), safe=False))
        return numbers
    try:
        text = pc.binary_join(one_chunk(column), "|") if pa.types.is_list(kind) else column.cast(pa.string())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        raise DataError(f"{what} holds {kind}: return numbers, truths or text") from None
    texts = np.full(rows, None, object)
    texts[places] = np.array(text.to_pylist(), object)
    return texts
