"""The panel: the columns of many instruments laid end to end, with the offsets at which each begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Column = tuple[str | int | float, ...]
"""A column of points: its name, and what it was asked for, such as a level."""


@dataclass(frozen=True)
class Points:
    """The points of one stream, each instrument's sorted by when they became known, at `time`, in microseconds since 1970.

    `spans` has two rows, both ascending: for each instrument of the panel its first point and the one behind its last. `columns` hold
    float64, NaN where missing, by name and by what was asked for.
    """

    spans: Ints
    time: Ints
    columns: Mapping[Column, Floats]


@dataclass(frozen=True)
class Acted:
    """Splits and dividends by instrument and ex-date (`time`), and what each multiplies earlier prices and volumes with."""

    offsets: Ints
    time: Ints
    price: Floats
    volume: Floats


@dataclass(frozen=True)
class Panel:
    """Bars of `len(offsets) - 1` instruments and the points that concern them, each instrument's rows sorted by time.

    `ts` are microseconds since 1970; `columns` hold float64, NaN where missing. `grid` is the step that bars must open on (0: none), in
    microseconds. `closes`, when each bar closes, is needed for trades, quotes and order books. Plans with stages also need `known`, when
    each bar could be known, `moment`, at which it looks at bars of higher timeframes, in `higher` the panels of those, of the same
    instruments in the same order, and what `acted` on prices in between.
    """

    offsets: Ints
    ts: Ints
    columns: Mapping[str, Floats]
    points: Mapping[str, Points]
    grid: int
    closes: Ints | None = None
    known: Ints | None = None
    moment: Ints | None = None
    higher: Mapping[str, Panel] = field(default_factory=dict)
    acted: Acted | None = None
    sections: Mapping[str, Ints] = field(default_factory=dict)
    """When the columns of operators across instruments could be known."""

    def take_last(self, keep: int) -> Panel:
        """The last `keep` bars of every instrument, the points as they are: what a live computation needs."""
        starts = np.maximum(self.offsets[:-1], self.offsets[1:] - keep)
        lengths = self.offsets[1:] - starts
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        rows = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
        columns = {name: values[rows] for name, values in self.columns.items()}
        times = (None if some is None else some[rows] for some in (self.closes, self.known, self.moment))
        closes, known, moment = times
        return replace(self, offsets=offsets, ts=self.ts[rows], columns=columns, closes=closes, known=known, moment=moment)
