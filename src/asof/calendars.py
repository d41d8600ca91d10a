"""When bars are expected, and when they close: by the sessions of an exchange, or always.

An instrument without a calendar has bars when it has bars: none is missed, and each closes a timeframe after its open.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from asof.errors import DefinitionError, MissingExtra, did_you_mean
from asof.timeframes import UNITS
from asof.timeframes import timeframe as micros_of

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

ALWAYS = "24/7"
FIRST_SESSIONS = ("1990", "2000", "2010", "2020", "2022")
"""From when on sessions are known, at the first that the calendar reaches; bars before are taken as they come."""
EVERYBODY = "*"
"""Stands for every instrument that is not named."""


class Calendar(Protocol):
    """The times at which bars of a timeframe are expected. Times are in microseconds, and in order."""

    def gaps(self, ts: Ints, timeframe: str) -> Bools:
        """Between which neighbours of the times at which bars open other bars are expected: one fewer than there are times."""
        ...

    def closes(self, ts: Ints, timeframe: str) -> Ints:
        """When the bar that opens at each time closes."""
        ...

    def session_of(self, ts: Ints) -> tuple[Ints, Ints]:
        """When the session that each time lies in begins and ends; -1 where it is in none."""
        ...

    def trading(self, at: Ints) -> Ints:
        """Microseconds of trading up to each time, counted from a moment of the calendar's own; the times may be in any order."""
        ...

    def sessions(self, at: Ints) -> Ints:
        """How many sessions have begun up to each time, a day's microseconds for each; likewise."""
        ...


class Always:
    """A market that never closes."""

    def gaps(self, ts: Ints, timeframe: str) -> Bools:
        """See `Calendar.gaps`."""
        step = micros_of(timeframe)
        return np.asarray(np.diff(ts // step) > 1)

    def closes(self, ts: Ints, timeframe: str) -> Ints:
        """See `Calendar.closes`."""
        return ts + micros_of(timeframe)

    def session_of(self, ts: Ints) -> tuple[Ints, Ints]:
        """See `Calendar.session_of`. They are the days of UTC."""
        begins = ts // UNITS["d"] * UNITS["d"]
        return begins, begins + UNITS["d"]

    def trading(self, at: Ints) -> Ints:
        """See `Calendar.trading`: all time is."""
        return at

    def sessions(self, at: Ints) -> Ints:
        """See `Calendar.sessions`: each is a day by the clock."""
        return at


@dataclass(frozen=True)
class Sessions:
    """An exchange's sessions: the day of each, and the stretches of trading in it (two where there is a break), in microseconds."""

    days: Ints
    begins: Ints
    ends: Ints
    stretch_begins: Ints
    stretch_ends: Ints

    def gaps(self, ts: Ints, timeframe: str) -> Bools:
        """See `Calendar.gaps`. Bars of several days are taken as they come.

        Bars of minutes and hours open on the timeframe's grid, or at that distance from where trading begins: two bars on the grid are
        neighbours on it, others by their place in the stretch of trading.
        """
        step = micros_of(timeframe)
        if timeframe == "1d":
            return np.asarray(np.diff(self._sessions_up_to(ts)) > 1)
        if timeframe.endswith("d"):
            return np.zeros(max(len(ts) - 1, 0), bool)
        first, end = self.stretch_begins // step * step, -(-self.stretch_ends // step) * step
        first[1:] = np.maximum(first[1:], end[:-1])  # a bar that spans a break is one bar
        on_grid = ts % step == 0
        gridded, anchored = _ranks(ts, first, end, step), _ranks(ts, self.stretch_begins, self.stretch_ends, step)
        return np.where(on_grid[1:] & on_grid[:-1], np.diff(gridded), np.diff(anchored)) > 1

    def closes(self, ts: Ints, timeframe: str) -> Ints:
        """See `Calendar.closes`. A daily bar closes with its session; one of no session a day after it opens."""
        if timeframe != "1d" or not len(ts):
            return ts + micros_of(timeframe)
        session = np.maximum(self._sessions_up_to(ts) - 1, 0)
        mine = np.where(ts % UNITS["d"] == 0, self.days[session] == ts, (self.begins[session] <= ts) & (ts < self.ends[session]))
        closes: Ints = np.where(mine, self.ends[session], ts + UNITS["d"])
        return closes

    def session_of(self, ts: Ints) -> tuple[Ints, Ints]:
        """See `Calendar.session_of`. A break in it does not end a session."""
        session = np.maximum(np.searchsorted(self.begins, ts, side="right") - 1, 0)
        begins, ends = self.begins[session], self.ends[session]
        inside = (begins <= ts) & (ts < ends)
        return np.where(inside, begins, -1), np.where(inside, ends, -1)

    def trading(self, at: Ints) -> Ints:
        """See `Calendar.trading`. Breaks are none; where no session is known, it goes by the clock."""
        lengths = self.stretch_ends - self.stretch_begins
        before = np.concatenate(([0], np.cumsum(lengths)))
        stretch = np.maximum(np.searchsorted(self.stretch_begins, at, side="right") - 1, 0)
        found: Ints = before[stretch] + np.clip(at - self.stretch_begins[stretch], 0, lengths[stretch])
        return found + self._beyond(at)

    def sessions(self, at: Ints) -> Ints:
        """See `Calendar.sessions`. Where no session is known, each is a day by the clock."""
        return np.searchsorted(self.begins, at, side="right") * UNITS["d"] + self._beyond(at)

    def _beyond(self, at: Ints) -> Ints:
        """How far times lie before the first session that is known, which is negative, or after the last."""
        return at - np.clip(at, self.begins[0], self.ends[-1])

    def _sessions_up_to(self, ts: Ints) -> Ints:
        midnight = ts % UNITS["d"] == 0
        found: Ints = np.where(midnight, np.searchsorted(self.days, ts, side="right"), np.searchsorted(self.begins, ts, side="right"))
        return found


def _ranks(ts: Ints, begins: Ints, ends: Ints, step: int) -> Ints:
    """How many bars open up to each time, where one does at each step from each begin to its end."""
    slots = -(-(ends - begins) // step)
    before = np.concatenate(([0], np.cumsum(slots)))
    stretch = np.maximum(np.searchsorted(begins, ts, side="right") - 1, 0)
    found: Ints = before[stretch] + np.clip((ts - begins[stretch]) // step + 1, 0, slots[stretch])
    return found


@cache
def calendar(name: str) -> Calendar:
    """The calendar of an exchange code such as `XNYS`, or `24/7`. Raises `DefinitionError` where there is no such."""
    if name == ALWAYS:
        return Always()
    try:
        import exchange_calendars  # an extra, and slow to load
    except ModuleNotFoundError:
        raise MissingExtra(f'the calendar {name} needs exchange-calendars: pip install "asof[calendars]"') from None
    known = sorted(exchange_calendars.get_calendar_names())
    if name not in known:
        raise DefinitionError(f"calendar {name!r} is neither 24/7 nor the code of an exchange{did_you_mean(name, known)}")
    for start in FIRST_SESSIONS:
        try:
            found = exchange_calendars.get_calendar(name, start=f"{start}-01-01")
            break
        except (ValueError, NotImplementedError) as error:
            reason = error
    else:
        raise DefinitionError(f"exchange-calendars cannot give the calendar {name}: {reason}")
    days, opens, closes = (nanos // 1000 for nanos in (found.sessions_nanos, found.opens_nanos, found.closes_nanos))
    broken = ~found.break_starts.isna()
    begins = np.sort(np.concatenate((opens, found.break_ends_nanos[broken] // 1000)))
    ends = np.sort(np.concatenate((closes, found.break_starts_nanos[broken] // 1000)))
    return Sessions(days, opens, closes, begins, ends)


def assigned(text: str) -> dict[str, str]:
    """The calendars that a line of text gives: `XNYS` to everybody, or `AAPL=XNYS, BTC=24/7`. Raises `ValueError`."""
    pairs = [[side.strip() for side in part.rpartition("=")[::2]] for part in text.split(",") if part.strip()]
    names = {instrument or EVERYBODY: name for instrument, name in pairs}
    if not all(names.values()) or len(names) < len(pairs):
        raise ValueError("an exchange, or instruments with theirs as in AAPL=XNYS, BTC=24/7, each once")
    return names


@dataclass(frozen=True)
class Calendars:
    """The calendar of each instrument: by its name, or that of `*`, or none."""

    names: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.names)

    def check(self) -> None:
        """Raise `DefinitionError` where there is no calendar of one of the names."""
        for name in {*self.names.values()}:
            calendar(name)

    def name_of(self, instrument: str) -> str | None:
        """The name of an instrument's calendar, None where it has none."""
        return self.names.get(instrument, self.names.get(EVERYBODY))

    def of(self, instrument: str) -> Calendar | None:
        """The calendar of an instrument, None where it has none."""
        name = self.name_of(instrument)
        return None if name is None else calendar(name)

    def unbroken(self, instrument: str, ts: Ints, timeframe: str) -> NDArray[np.float64]:
        """1 where a bar is the one that was expected after the bar before it, or the first; missing where expected ones are absent."""
        found, whole = self.of(instrument), np.ones(len(ts))
        if found is not None:
            whole[1:][found.gaps(ts, timeframe)] = np.nan
        return whole

    def closes(self, instrument: str, ts: Ints, timeframe: str) -> Ints:
        """When the bars that open at these times close."""
        found = self.of(instrument)
        return ts + micros_of(timeframe) if found is None else found.closes(ts, timeframe)

    def session_of(self, instrument: str, ts: Ints) -> tuple[Ints, Ints]:
        """When the session that each time lies in begins and ends, -1 where none is open; without a calendar, the days of UTC."""
        return (self.of(instrument) or Always()).session_of(ts)


NO_CALENDARS = Calendars()
"""No instrument has one."""
