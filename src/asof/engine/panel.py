"""The panel: the columns of many instruments laid end to end, with the offsets at which each begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Panel:
    """Bars of `len(offsets) - 1` instruments and the events that name them, each instrument's rows sorted by time.

    `ts` and `event_time` are microseconds since 1970; `columns` and `event_columns` hold float64, NaN where missing.
    `step` is the timeframe and `grid` the step that bars must open on (0: none), in microseconds.
    """

    offsets: Ints
    ts: Ints
    columns: Mapping[str, Floats]
    event_offsets: Ints
    event_time: Ints
    event_columns: Mapping[str, Floats]
    grid: int

    def slice(self, first: int, last: int, start: int, stop: int, window: int) -> Panel:
        """Instruments `first` to `last`, bars `start` to `stop` (all of them, or a stretch of one), and the events that they see."""
        offsets = np.clip(self.offsets[first : last + 1], start, stop) - start
        a, b = int(self.event_offsets[first]), int(self.event_offsets[last])
        if last == first + 1 and stop > start:
            times = self.event_time[a:b]
            b = a + int(np.searchsorted(times, self.ts[stop - 1], side="right"))
            a += int(np.searchsorted(times, self.ts[start] - window, side="left"))
        return Panel(
            offsets=offsets,
            ts=self.ts[start:stop],
            columns={name: values[start:stop] for name, values in self.columns.items()},
            event_offsets=np.clip(self.event_offsets[first : last + 1], a, b) - a,
            event_time=self.event_time[a:b],
            event_columns={name: values[a:b] for name, values in self.event_columns.items()},
            grid=self.grid,
        )

    def take_last(self, keep: int) -> Panel:
        """The last `keep` bars of every instrument, the events as they are: what a live computation needs."""
        starts = np.maximum(self.offsets[:-1], self.offsets[1:] - keep)
        lengths = self.offsets[1:] - starts
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        rows = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
        columns = {name: values[rows] for name, values in self.columns.items()}
        return Panel(offsets, self.ts[rows], columns, self.event_offsets, self.event_time, self.event_columns, self.grid)
