"""Worlds: what a computation is shown of a market, and the ways in which another could have come instead.

All times are microseconds since 1970. What is known at a moment are the bars and points available by then and the events enriched by then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from asof.calendars import NO_CALENDARS, Calendars
from asof.engine.panel import Floats, Ints
from asof.features.streams import BOOKS, QUOTES, TRADES
from asof.jobs.adjusting import NO_ACTIONS
from asof.jobs.members import NO_MEMBERSHIPS, since
from asof.jobs.panels import NO_MARKET, sort_bars
from asof.jobs.points import SCHEMAS, known
from asof.records import BARS, EVENT_DETAILS, EVENTS, PRICES, UTC, Bools, floats, micros, one_chunk
from asof.timeframes import timeframe as timeframe_micros

NUMBERS = (*PRICES, "volume")
POINT_NUMBERS = {TRADES: ("price", "size", "side"), QUOTES: ("bid", "bid_size", "ask", "ask_size"), BOOKS: ()}
"""What trades, quotes and books hold beside their times, and lists."""
LISTS = ("bid_prices", "bid_sizes", "ask_prices", "ask_sizes")
NO_TABLES: Mapping[str, pa.Table] = {}
ARRIVAL = [(name, "ascending") for name in ("enriched_at_utc", "instrument_id", "event_id")]
"""The order in which events become known."""


@dataclass(frozen=True)
class World:
    """Bars by instrument and time, each with its `available_at`, events by arrival, one row for each instrument, actions, memberships.

    All in their canonical schemas. An action is known from its ex-date on. `market` has trades, quotes and books, by stream, each with its
    `available_at`; `higher` are bars of higher timeframes, as bars otherwise.
    """

    bars: pa.Table
    events: pa.Table
    timeframe: str
    actions: pa.Table = field(default_factory=lambda: NO_ACTIONS)
    market: Mapping[str, pa.Table] = field(default_factory=dict)
    higher: Mapping[str, pa.Table] = field(default_factory=dict)
    memberships: pa.Table = field(default_factory=lambda: NO_MEMBERSHIPS)

    @classmethod
    def of(
        cls,
        bars: pa.Table,
        events: pa.Table,
        timeframe: str,
        calendars: Calendars = NO_CALENDARS,
        actions: pa.Table = NO_ACTIONS,
        market: Mapping[str, pa.Table] = NO_MARKET,
        higher: Mapping[str, pa.Table] = NO_TABLES,
        memberships: pa.Table = NO_MEMBERSHIPS,
    ) -> World:
        """The world of usable records: a bar that does not say when it became available did at its close."""
        above = {text: _told(table, text, calendars) for text, table in higher.items()}
        return cls(_told(bars, timeframe, calendars), events.sort_by(ARRIVAL), timeframe, actions, market, above, memberships)

    @property
    def opens(self) -> Ints:
        """When each bar opens."""
        return micros(self.bars["ts"])

    @property
    def available(self) -> Ints:
        """When each bar could be known."""
        return micros(self.bars["available_at"])

    @property
    def enriched(self) -> Ints:
        """When each event could be known."""
        return micros(self.events["enriched_at_utc"])

    @property
    def arrivals(self) -> Ints:
        """When bars, events, the market's points and bars of higher timeframes became known."""
        above = (micros(table["available_at"]) for table in self.higher.values())
        return np.concatenate((self.available, self.enriched, *map(known, self.market.values()), *above))

    def series(self) -> Iterator[tuple[str, slice]]:
        """Each instrument and its bars."""
        return sort_bars(self.bars).series()

    def kept(self, bars: Bools | None = None, events: Bools | None = None) -> World:
        """The rows where the masks are true."""
        return replace(
            self,
            bars=self.bars if bars is None else self.bars.filter(pa.array(bars)),
            events=self.events if events is None else self.events.filter(pa.array(events)),
        )

    def points(self, keep: Callable[[pa.Table], Bools]) -> World:
        """The trades, quotes and books for which something holds."""
        return replace(self, market={stream: table.filter(pa.array(keep(table))) for stream, table in self.market.items()})

    def tables(self, keep: Callable[[pa.Table], Bools]) -> World:
        """The trades, quotes, books and bars of higher timeframes for which something holds."""
        above = {text: table.filter(pa.array(keep(table))) for text, table in self.higher.items()}
        return replace(self.points(keep), higher=above)

    def known(self, at: int) -> World:
        """What was known at a moment: the future is cut off."""
        actions = self.actions.filter(pa.array(micros(self.actions["ts"]) <= at))
        told = self.memberships.filter(pa.array(since(self.memberships) <= at))
        acted = replace(self, actions=actions, memberships=told)
        return acted.tables(lambda table: known(table) <= at).kept(self.available <= at, self.enriched <= at)

    def since(self, start: int) -> World:
        """Without the bars that open before `start`; the events stay."""
        return self.kept(self.opens >= start)

    def without_events_before(self, start: int) -> World:
        """Without the events and the market's points that became known before `start`; the bars stay."""
        return self.points(lambda table: known(table) >= start).kept(events=self.enriched >= start)

    def only(self, instrument: str) -> World:
        """One instrument alone."""

        def mine(table: pa.Table) -> Bools:
            return np.asarray(pc.equal(table["instrument_id"], instrument))

        return self.tables(mine).kept(mine(self.bars), mine(self.events))

    def changed(self, at: int, random: np.random.Generator) -> World:
        """Another future after `at`: other prices, volumes and scores, and a tenth of the bars and events are not there."""
        later, unseen = self.available > at, self.enriched > at
        bars = _moved(self.bars, later, random)
        scores = {"score": (-1.0, 1.0), "confidence": (0.0, 1.0)}
        events = _with_numbers(
            self.events,
            {n: np.where(unseen, random.uniform(*span, len(unseen)), floats(self.events[n])) for n, span in scores.items()},
        )
        events = _moved_details(events, np.flatnonzero(unseen), random)
        market = {stream: _changed_points(table, known(table) > at, random) for stream, table in self.market.items()}
        above = {text: _otherwise(table, at, random) for text, table in self.higher.items()}
        other = replace(self, bars=bars, events=events, market=market, higher=above, memberships=self._other_members(at, random))
        return other.kept(~later | (random.random(len(later)) > 0.1), ~unseen | (random.random(len(unseen)) > 0.1))

    def _other_members(self, at: int, random: np.random.Generator) -> pa.Table:
        """The memberships that were known at `at`, and half of those that come after it."""
        kept = (since(self.memberships) <= at) | (random.random(len(self.memberships)) < 0.5)
        return self.memberships.filter(pa.array(kept))

    def renamed(self, names: Mapping[str, str]) -> World:
        """The same world, whose instruments have other names, and so another order."""

        def rename(table: pa.Table) -> pa.Table:
            place = table.schema.get_field_index("instrument_id")
            column = pa.array([names.get(name, name) for name in table["instrument_id"].to_pylist()], pa.string())
            return table.set_column(place, table.schema.field(place), column)

        bars, events, actions, memberships = map(rename, (self.bars, self.events, self.actions, self.memberships))
        market = {stream: rename(table) for stream, table in self.market.items()}
        above = {text: sort_bars(rename(table)).table for text, table in self.higher.items()}
        return World(sort_bars(bars).table, events.sort_by(ARRIVAL), self.timeframe, actions, market, above, memberships)

    def shuffled(self, at: int, random: np.random.Generator) -> World:
        """The same future after `at` in another order: what its bars and events hold changes places."""
        later, unseen = np.flatnonzero(self.available > at), np.flatnonzero(self.enriched > at)
        bars = _rearranged(self.bars, NUMBERS, later, random.permutation(later))
        events = _rearranged(self.events, ("score", "confidence"), unseen, random.permutation(unseen))
        events = _moved_details(events, unseen, random)
        market = {stream: _shuffled(table, at, POINT_NUMBERS[stream], random) for stream, table in self.market.items()}
        above = {text: _shuffled(table, at, NUMBERS, random) for text, table in self.higher.items()}
        return replace(self, bars=bars, events=events, market=market, higher=above)

    def with_holes(self, at: int) -> World:
        """With no prices in the last bar of each instrument that is known at `at`: whoever fills it can only do so from what follows."""
        known = np.flatnonzero(self.available <= at)
        rows = np.zeros(len(self.bars), np.bool_)
        instruments = np.asarray(self.bars["instrument_id"].dictionary_encode().combine_chunks().indices)
        rows[known[np.flatnonzero(np.diff(instruments[known], append=-1))]] = True
        return replace(self, bars=_with_numbers(self.bars, {n: np.where(rows, np.nan, floats(self.bars[n])) for n in NUMBERS}))

    def delayed(self, random: np.random.Generator, bars_late: float, events_late: float) -> World:
        """With shares of the bars and events known up to five bars later, out of their order."""
        longest = 5 * timeframe_micros(self.timeframe)
        shares = ((bars_late, len(self.bars)), (events_late, len(self.events)))
        late = [np.where(random.random(rows) < share, random.integers(1, longest, rows), 0) for share, rows in shares]
        bars = _with_times(self.bars, BARS, "available_at", self.available + late[0])
        events = _with_times(self.events, EVENTS, "enriched_at_utc", self.enriched + late[1])
        scored = np.maximum(micros(events["scored_at_utc"]), micros(events["enriched_at_utc"]))
        market = {stream: _delayed(table, longest, events_late, random) for stream, table in self.market.items()}
        above = {text: _delayed(table, longest, bars_late, random) for text, table in self.higher.items()}
        events = _with_times(events, EVENTS, "scored_at_utc", scored).sort_by(ARRIVAL)
        return replace(self, bars=bars, events=events, market=market, higher=above)


def _changed_points(table: pa.Table, unseen: Bools, random: np.random.Generator) -> pa.Table:
    """Points of which those unseen have other numbers, and a tenth of them are not there."""
    names = POINT_NUMBERS[_stream_of(table)]
    factors = {name: np.where(unseen, np.exp(random.normal(0, 0.1, len(table))), 1.0) for name in names}
    numbers = {name: floats(table[name]) * factors[name] for name in names}
    if "gap" in table.column_names:
        flipped = np.asarray(table["gap"]) ^ (unseen & (random.random(len(table)) < 0.5))
        table = table.set_column(table.schema.get_field_index("gap"), "gap", pa.array(flipped))
        for name in LISTS:
            table = table.set_column(table.schema.get_field_index(name), name, _scaled(table[name], unseen, random))
    return _with_numbers(table, numbers).filter(pa.array(~unseen | (random.random(len(table)) > 0.1)))


def _stream_of(table: pa.Table) -> str:
    return next(stream for stream, schema in SCHEMAS.items() if table.schema.names == schema.names)


def _scaled(lists: pa.ChunkedArray, rows: Bools, random: np.random.Generator) -> pa.Array:
    """Lists of which some are multiplied, each by one number, so that their order stays."""
    array = one_chunk(lists)
    factor = np.where(rows, np.exp(random.normal(0, 0.1, len(rows))), 1.0)
    values = floats(pc.list_flatten(array)) * np.repeat(factor, np.asarray(pc.list_value_length(array)))
    starts = np.concatenate(([0], np.cumsum(np.asarray(pc.list_value_length(array)))))
    return pa.ListArray.from_arrays(pa.array(starts.astype(np.int32)), pa.array(values))


def _told(bars: pa.Table, timeframe: str, calendars: Calendars) -> pa.Table:
    """Bars by instrument and time, each of which says when it became available."""
    found = sort_bars(bars)
    place = BARS.get_field_index("available_at")
    return found.table.set_column(place, BARS.field(place), pa.array(found.known(timeframe, calendars)).cast(UTC))


def _moved(bars: pa.Table, rows: Bools, random: np.random.Generator) -> pa.Table:
    """Bars with other prices and volumes in some rows."""
    factor = np.where(rows, np.exp(random.normal(0, 0.3, len(rows))), 1.0)
    return _with_numbers(bars, {name: floats(bars[name]) * factor for name in NUMBERS})


def _otherwise(bars: pa.Table, at: int, random: np.random.Generator) -> pa.Table:
    """Bars of which those that were not known at `at` have other prices, and a tenth of them is not there."""
    later = micros(bars["available_at"]) > at
    return _moved(bars, later, random).filter(pa.array(~later | (random.random(len(later)) > 0.1)))


def _shuffled(table: pa.Table, at: int, names: tuple[str, ...], random: np.random.Generator) -> pa.Table:
    """Rows of which those that were not known at `at` have one another's numbers."""
    rows = np.flatnonzero(known(table) > at)
    return _rearranged(table, names, rows, random.permutation(rows))


def _delayed(table: pa.Table, longest: int, share: float, random: np.random.Generator) -> pa.Table:
    """Rows of which a share became known later, by less than `longest`."""
    late = np.where(random.random(len(table)) < share, random.integers(1, longest, len(table)), 0)
    return _with_times(table, table.schema, "available_at", known(table) + late)


def _with_numbers(table: pa.Table, columns: dict[str, Floats]) -> pa.Table:
    for name, values in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(values, from_pandas=True))
    return table


def _with_times(table: pa.Table, schema: pa.Schema, name: str, times: Ints) -> pa.Table:
    place = schema.get_field_index(name)
    return table.set_column(place, schema.field(place), pa.array(times).cast(UTC))


def _moved_details(events: pa.Table, rows: Ints, random: np.random.Generator) -> pa.Table:
    """Events of which some have changed what they are about, where they come from and what they say."""
    said = [name for name in EVENT_DETAILS if events[name].null_count < len(events)]
    places = np.arange(len(events))
    places[rows] = random.permutation(rows) if said else rows
    for name in said:
        events = events.set_column(events.schema.get_field_index(name), name, events[name].take(pa.array(places)))
    return events


def _rearranged(table: pa.Table, names: tuple[str, ...], rows: Ints, places: Ints) -> pa.Table:
    """The values of some columns moved from `rows` to `places`."""
    columns = {name: floats(table[name]).copy() for name in names}
    for values in columns.values():
        values[places] = values[rows]
    return _with_numbers(table, columns)
