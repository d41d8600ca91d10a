"""Bars of a higher timeframe out of the stored bars of a lower one, kept up to date with them.

1. `resampled` puts sorted bars into the intervals that they open in: on the timeframe's grid for minutes and hours, sessions for days.
   An interval without a bar has none; one with some has a bar, known once it has closed and all that it is made of is known.
2. `Resampling.everything` goes over all lower bars, a stretch of time of some instruments at a time.
3. `Resampling.catch_up` asks the store which lower bars have changed since the last time, and makes the bars of their intervals again.
   Those of intervals that have not closed wait in a list until they have.
4. What is written replaces bars of ours alone. Those of another source stay as they are, and are counted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC as ZONE
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from asof.calendars import NO_CALENDARS, Calendars
from asof.engine.layout import rolled_up
from asof.engine.panel import Ints
from asof.errors import DefinitionError, NotFound
from asof.jobs.backfill import Progress
from asof.jobs.following import WAITING
from asof.jobs.panels import SortedBars, sort_bars
from asof.jobs.parts import MOST_PART_ROWS
from asof.records import BARS, PRICES, UTC, Bools, floats, micros
from asof.stores.store import BARS_TABLE, CHANGES, FOLLOWING, SPANS, Changes, Selection, Store
from asof.timeframes import UNITS
from asof.timeframes import timeframe as timeframe_micros

SOURCE = "asof resample "
"""What the source of a resampled bar begins with; the timeframe that it is made of follows."""
NUMBERS = (*PRICES, "volume")
READ = ("instrument_id", "ts", *NUMBERS, "available_at")
"""What is read of lower bars."""
PIECE = 1_000
"""Intervals that are made again at a time."""
KEY = ["instrument_id", "ts"]
LONGEST = 2 * UNITS["d"]
"""No interval is longer."""


@dataclass(frozen=True)
class Intervals:
    """For each bar where the interval that it opens in begins and ends; -1 where it is in none, for no session is open then."""

    begins: Ints
    ends: Ints


def check(lower: str, higher: str) -> None:
    """Refuse timeframes of which the one cannot be made of the other."""
    small, large = timeframe_micros(lower), timeframe_micros(higher)
    if large <= small or large % small or (large > UNITS["d"]):
        mend = "a higher timeframe is longer, a multiple of the lower one, and a day at most"
        raise DefinitionError(f"{higher} bars cannot be made of {lower} bars: {mend}")


def intervals(instrument: str, ts: Ints, timeframe: str, calendars: Calendars) -> Intervals:
    """The intervals of a timeframe that times lie in: by its grid, or for days by the sessions of the instrument's calendar."""
    step = timeframe_micros(timeframe)
    if step == UNITS["d"]:
        return Intervals(*calendars.session_of(instrument, ts))
    begins = ts // step * step
    return Intervals(begins, begins + step)


def resampled(bars: SortedBars, lower: str, higher: str, calendars: Calendars = NO_CALENDARS) -> pa.Table:
    """The bars of a higher timeframe that sorted lower bars make, by instrument and time; raises `DefinitionError` where that cannot be.

    Bars that open outside of the sessions of their calendar are in no daily bar.
    """
    check(lower, higher)
    ts, known = micros(bars.table["ts"]), bars.known(lower, calendars)
    begins, ends, codes = (np.zeros(len(ts), np.int64) for _ in range(3))
    for k, (name, mine) in enumerate(bars.series()):
        found = intervals(name, ts[mine], higher, calendars)
        begins[mine], ends[mine], codes[mine] = found.begins, found.ends, k
    inside = np.flatnonzero(begins >= 0)
    begins, ends, codes, known = begins[inside], ends[inside], codes[inside], known[inside]
    starts = np.flatnonzero((np.diff(begins, prepend=-1) != 0) | (np.diff(codes, prepend=-1) != 0))
    made = rolled_up(tuple(floats(bars.table[name])[inside] for name in NUMBERS), starts)
    begins, ends, names = begins[starts], ends[starts], bars.instruments.take(pa.array(codes[starts]))
    available = np.maximum(ends, np.maximum.reduceat(known, starts) if len(starts) else ends)
    columns = {
        "instrument_id": names,
        "timeframe": pa.repeat(higher, len(starts)),
        "ts": pa.array(begins).cast(UTC),
        **{name: pa.array(values, from_pandas=True) for name, values in zip(NUMBERS, made, strict=True)},
        "source": pa.repeat(f"{SOURCE}{lower}", len(starts)),
        "available_at": pa.array(available, mask=available == begins + timeframe_micros(higher)).cast(UTC),
    }
    return pa.table([columns[name] for name in BARS.names], schema=BARS)


@dataclass(frozen=True)
class Resampled:
    """What was done: bars that were made, and how they differed from what was stored; those withdrawn, and those of others left alone."""

    made: int = 0
    changes: Changes = field(default_factory=Changes)
    withdrawn: int = 0
    left_alone: int = 0
    next_close: datetime | None = None

    def __add__(self, other: Resampled) -> Resampled:
        """What both did."""
        return Resampled(
            self.made + other.made,
            self.changes + other.changes,
            self.withdrawn + other.withdrawn,
            self.left_alone + other.left_alone,
            min((moment for moment in (self.next_close, other.next_close) if moment), default=None),
        )


@dataclass(frozen=True)
class Resampling:
    """The bars of the timeframe `higher`, made of those of `lower` at `now`. `who` tells apart those who keep them up to date."""

    store: Store
    lower: str
    higher: str
    now: datetime
    calendars: Calendars = NO_CALENDARS
    instruments: frozenset[str] | None = None
    who: str = "resample"

    def __post_init__(self) -> None:
        check(self.lower, self.higher)

    @property
    def name(self) -> str:
        """The name of its position in the changes."""
        return f"{self.who}/{self.lower}/{self.higher}"

    @property
    def _now(self) -> int:
        return int(self.now.timestamp() * 1_000_000)

    def begin(self, progress: Progress = lambda done, total: None) -> Resampled:
        """Follow, and the first time make everything; until that has ended well it counts as the first time."""
        self.store.follow(self.name)
        if WAITING + self.name in self.store.positions(WAITING + self.name):
            return Resampled()
        return self.everything(progress, then_wait=True)

    def everything(self, progress: Progress = lambda done, total: None, *, then_wait: bool = False) -> Resampled:
        """Make the bars of all intervals that have closed. Raises `NotFound` where there are no lower bars."""
        spans = self.store.spans(self.lower)
        if self.instruments is not None:
            spans = spans.filter(pc.is_in(spans["instrument_id"], pa.array(sorted(self.instruments), pa.string())))
        if not len(spans):
            raise NotFound(f"the store has no {self.lower} bars to make {self.higher} bars of")
        done, still_open, total = Resampled(), set[tuple[str, datetime]](), int(pc.sum(spans["bars"]).as_py())
        for names, start, end in _stretches(spans.to_pylist(), timeframe_micros(self.lower)):
            piece, waiting = self._stretch(names, start, end)
            done += piece
            still_open |= waiting
            progress(piece.made * (timeframe_micros(self.higher) // timeframe_micros(self.lower)), total)
        if then_wait:
            self._move(still_open)
        return done

    def _stretch(self, names: tuple[str, ...], start: int, end: int) -> tuple[Resampled, set[tuple[str, datetime]]]:
        """What lies in the intervals that begin in `[start, end)`, and the bars of those that have not closed."""
        first, last = (_moment(max(at, 0)) for at in (start - LONGEST, end + LONGEST))
        lower = self._read(Selection(self.lower, names, first, last))
        made = resampled(lower, self.lower, self.higher, self.calendars)
        begins = micros(made["ts"])
        made = made.filter(pa.array((begins >= start) & (begins < end)))
        closed = self._closed(made)
        waiting = made.filter(pa.array(~closed)).select(KEY).to_pylist()
        there = self._there(Selection(self.higher, names, _moment(max(start, 0)), _moment(end - 1)))
        return self._write(made.filter(pa.array(closed)), there), {(row["instrument_id"], row["ts"]) for row in waiting}

    def _read(self, selection: Selection) -> SortedBars:
        found = [BARS.empty_table().select(READ), *self.store.read(BARS_TABLE, selection, READ, ordered=False)]
        return sort_bars(pa.concat_tables(found))

    def _closed(self, made: pa.Table) -> Bools:
        """Which bars are of intervals that have closed."""
        ends = np.zeros(len(made), np.int64)
        for name, mine in sort_bars(made).series():
            ends[mine] = intervals(name, micros(made["ts"])[mine], self.higher, self.calendars).ends
        return np.asarray(ends <= self._now)

    def catch_up(self) -> Iterator[Resampled]:
        """Make again what has changed since the last time; what was done for each piece. Raises `NotFound` where nobody follows yet."""
        found, position = self.store.changes(self.name)
        mine = pc.fill_null(pc.equal(found["timeframe"], self.lower), False)
        if self.instruments is not None:
            mine = pc.and_(mine, pc.is_in(found["instrument_id"], pa.array(sorted(self.instruments), pa.string())))
        changed = self._intervals(pa.concat_tables([found.filter(mine), self._waited_for()]))
        is_open = micros(changed["last"]) > self._now
        for start in range(0, len(changed), PIECE):
            piece = changed.slice(start, PIECE).filter(pa.array(~is_open[start : start + PIECE]))
            if len(piece):
                yield self._again(piece)
        waiting = changed.filter(pa.array(is_open))
        self._move({(row["instrument_id"], row["first"]) for row in waiting.to_pylist()}, position)
        if len(waiting):
            yield Resampled(next_close=pc.min(waiting["last"]).as_py())

    def _intervals(self, changes: pa.Table) -> pa.Table:
        """The intervals that changed bars are in, each once, as `SPANS`."""
        names, times = changes["instrument_id"].to_numpy(), micros(changes["time"])
        found = set[tuple[str, int, int]]()
        for name in sorted(set(names.tolist())):
            mine = intervals(name, times[names == name], self.higher, self.calendars)
            found |= {(name, begin, end) for begin, end in zip(mine.begins.tolist(), mine.ends.tolist(), strict=True) if begin >= 0}
        rows = sorted(found, key=lambda row: (row[1], row[0]))
        columns = [pa.array([row[0] for row in rows], pa.string())]
        columns += [pa.array([row[k] for row in rows], pa.int64()).cast(UTC) for k in (1, 2)]
        return pa.table(columns, schema=SPANS)

    def _again(self, changed: pa.Table) -> Resampled:
        """The bars of some intervals, or their withdrawal where no lower bar is left."""
        inside = pa.table([changed["instrument_id"], changed["first"], pa.array(micros(changed["last"]) - 1).cast(UTC)], schema=SPANS)
        lower = sort_bars(self.store.around(self.lower, inside, 0, READ))
        ends = pc.min_max(changed["first"]).as_py()
        names = tuple(sorted(pc.unique(changed["instrument_id"]).to_pylist()))
        there = self._there(Selection(self.higher, names, ends["min"], ends["max"]))
        keys = pa.table([changed["instrument_id"], changed["first"]], names=KEY)
        return self._write(resampled(lower, self.lower, self.higher, self.calendars), there.join(keys, KEY, join_type="left semi"))

    def _there(self, selection: Selection) -> pa.Table:
        """The keys of higher bars that are stored, and their sources."""
        columns = ("instrument_id", "timeframe", "ts", "source")
        return pa.concat_tables([BARS.empty_table().select(columns), *self.store.read(BARS_TABLE, selection, columns, ordered=False)])

    def _write(self, made: pa.Table, there: pa.Table) -> Resampled:
        """Store bars where there are none, or ours; and withdraw ours that are there and were not made."""
        ours = pc.fill_null(pc.starts_with(there["source"], SOURCE), False)
        others = there.filter(pc.invert(ours)).select(KEY).join(made.select(KEY), KEY, join_type="left semi")
        kept = made.join(others, KEY, join_type="left anti").select(BARS.names)
        gone = there.filter(ours).join(made.select(KEY), KEY, join_type="left anti")
        with self.store.transaction():
            changes = self.store.upsert(BARS_TABLE, kept.cast(BARS), self.now) if len(kept) else Changes()
            withdrawn = self.store.withdraw(BARS_TABLE, gone.select(list(BARS_TABLE.key)), self.now) if len(gone) else 0
        return Resampled(len(kept), changes, withdrawn, len(others))

    def _waited_for(self) -> pa.Table:
        kept = self.store.positions(WAITING + self.name).get(WAITING + self.name, "[]")
        rows = [
            {"kind": "bars", "instrument_id": name, "timeframe": self.lower, "time": datetime.fromisoformat(at)}
            for name, at in json.loads(kept)
        ]
        return pa.Table.from_pylist(rows, schema=CHANGES)

    def _move(self, waiting: set[tuple[str, datetime]], position: str | None = None) -> None:
        kept = json.dumps(sorted((name, at.isoformat()) for name, at in waiting))
        self.store.move({WAITING + self.name: kept} | ({FOLLOWING + self.name: position} if position else {}))


def _stretches(spans: Iterable[dict[str, object]], step: int) -> Iterator[tuple[tuple[str, ...], int, int]]:
    """Instruments, and stretches of their time, of which each holds no more bars than a part of a backfill."""
    group: list[str] = []
    first = last = size = 0
    for span in [*spans, None]:
        bars = int(span["bars"]) if span else 0  # type: ignore[call-overload]  # a count
        if group and (span is None or size + bars > MOST_PART_ROWS):
            length = (last - first) if size <= MOST_PART_ROWS else MOST_PART_ROWS * step
            for start in range(first, last + 1, max(length, LONGEST) + 1):
                yield tuple(group), start, min(start + max(length, LONGEST), last) + 1
            group, size = [], 0
        if span is not None:
            begin, end = (int(span[name].timestamp() * 1_000_000) for name in ("first", "last"))  # type: ignore[attr-defined]  # times
            first, last = (min(first, begin - LONGEST), max(last, end)) if group else (begin - LONGEST, end)
            group.append(str(span["instrument_id"]))
            size += bars


def _moment(microseconds: int) -> datetime:
    return datetime.fromtimestamp(microseconds // 1_000_000, ZONE).replace(microsecond=microseconds % 1_000_000)
