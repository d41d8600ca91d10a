"""How old a vector may be that a join takes: by the clock, or in the trading time of its instrument."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import numpy as np
import pyarrow as pa

from asof.calendars import Calendar, Calendars, Ints, calendar
from asof.errors import DefinitionError
from asof.records import Bools
from asof.timeframes import UNITS, duration, duration_text

TRADING = "trading"
"""The word that says so, as in `2h trading`."""


@dataclass(frozen=True)
class Age:
    """The oldest that may be used: `length` microseconds of what `counts`. Where sessions count, each is a day long."""

    length: int
    counts: Literal["clock", "trading", "sessions"] = "clock"

    @classmethod
    def of(cls, value: timedelta | str) -> Age:
        """`3d` by the clock (a `timedelta` says the same), `2h trading` of hours in which the market was open, `3d trading` of sessions.

        Raises `DefinitionError` for anything else.
        """
        if isinstance(value, timedelta):
            if value < timedelta(0):
                raise DefinitionError(f"max_age must not be negative, not {value}")
            return cls(value // timedelta.resolution)
        length, space, word = value.partition(" ")
        if not space:
            return cls(duration(length))
        if word != TRADING:
            raise DefinitionError(
                f"max_age {value!r} is neither time by the clock, such as '3d', nor of trading: '2h trading' for hours in which the market"
                " is open, '3d trading' for sessions"
            )
        return cls(duration(length), "sessions" if length.endswith("d") else "trading")

    @property
    def text(self) -> str:
        """What `of` reads back. Raises `DefinitionError` for what no text says."""
        if self.length <= 0 or self.length % UNITS["s"]:
            raise DefinitionError(f"max_age {timedelta(microseconds=self.length)} is not a number of whole seconds above 0, such as '5d'")
        if self.counts == "clock":
            return duration_text(self.length)
        units = ("d",) if self.counts == "sessions" else ("h", "m", "s")
        unit = next(unit for unit in units if not self.length % UNITS[unit])
        return f"{self.length // UNITS[unit]}{unit} {TRADING}"

    def check(self, calendars: Calendars) -> None:
        """Raise `DefinitionError` where trading counts, and nobody has a calendar."""
        if self.counts != "clock" and not calendars:
            raise DefinitionError(
                f"max_age '{self.text}' counts trading, and no instrument has a calendar: name one in asof.toml or ASOF_CALENDARS, such as"
                ' "*" = "XNYS", or leave out the word for time by the clock'
            )

    def covers(self, calendars: Calendars, instruments: pa.ChunkedArray, since: Ints, until: Ints) -> Bools:
        """Which rows are no older: from `since` to `until`, by the calendar of their instrument; by the clock where it has none."""
        old = until - since
        if self.counts != "clock":
            self.check(calendars)
            coded = instruments.combine_chunks().dictionary_encode()
            named = [calendars.name_of(instrument) for instrument in coded.dictionary.to_pylist()]
            for name in {name for name in named if name is not None}:
                rows = np.flatnonzero(np.asarray([name == of for of in named])[np.asarray(coded.indices)])
                old[rows] = self._passed(calendar(name), until[rows]) - self._passed(calendar(name), since[rows])
        return np.asarray(old <= self.length)

    def _passed(self, of: Calendar, times: Ints) -> Ints:
        return of.sessions(times) if self.counts == "sessions" else of.trading(times)
