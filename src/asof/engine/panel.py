"""The panel: the columns of many instruments laid end to end, with the offsets at which each begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Acted:
    """Splits and dividends by instrument and ex-date (`time`), and what each multiplies earlier prices and volumes with."""

    offsets: Ints
    time: Ints
    price: Floats
    volume: Floats


@dataclass(frozen=True)
class Panel:
    """Bars of `len(offsets) - 1` instruments and the events that name them, each instrument's rows sorted by time.

    `ts` and `event_time` are microseconds since 1970; `columns` and `event_columns` hold float64, NaN where missing. `event_spans` has two
    rows, both ascending: for each instrument its first event and the one behind its last. `grid` is the step that bars must open on
    (0: none), in microseconds. Plans with stages also need `known`, when each bar could be known, `moment`, at which it looks at bars of
    higher timeframes, in `higher` the panels of those, of the same instruments in the same order, and what `acted` on prices in between.
    """

    offsets: Ints
    ts: Ints
    columns: Mapping[str, Floats]
    event_spans: Ints
    event_time: Ints
    event_columns: Mapping[str, Floats]
    grid: int
    known: Ints | None = None
    moment: Ints | None = None
    higher: Mapping[str, Panel] = field(default_factory=dict)
    acted: Acted | None = None
    sections: Mapping[str, Ints] = field(default_factory=dict)
    """When the columns of operators across instruments could be known."""

    def take_last(self, keep: int) -> Panel:
        """The last `keep` bars of every instrument, the events as they are: what a live computation needs."""
        starts = np.maximum(self.offsets[:-1], self.offsets[1:] - keep)
        lengths = self.offsets[1:] - starts
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        rows = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
        columns = {name: values[rows] for name, values in self.columns.items()}
        known, moment = (None if times is None else times[rows] for times in (self.known, self.moment))
        return replace(self, offsets=offsets, ts=self.ts[rows], columns=columns, known=known, moment=moment)
