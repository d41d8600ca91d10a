"""Vectors in memory by when they could be seen: which of them is the newest of its instrument at a moment, and which can still matter."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from heapq import heappop, heappush

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from asof.engine.panel import Ints
from asof.records import Bools, micros

ALL = -(1 << 62)
"""Before every time."""
FOREVER = 1 << 62
"""After every time."""


@dataclass(frozen=True)
class Timeline:
    """Revisions of vectors, in any order, with the instruments they are of, by their number.

    A row is seen in `seen <= t < gone`; `since` is when the store learned of it, where revisions are followed, else 0. Of an instrument
    those that open from `depth` on are here, those left out that can never be the newest.
    """

    vectors: pa.Table
    instrument: Ints
    ts: Ints
    since: Ints
    seen: Ints
    gone: Ints
    depth: Ints

    @classmethod
    def of(cls, vectors: pa.Table, names: pa.Array, depth: Ints) -> Timeline:
        """The timeline of a table with `since`, `seen` and `gone` in microseconds."""
        numbers = np.asarray(pc.index_in(vectors["instrument_id"], names)).astype(np.int64)
        since, seen, gone = (micros(vectors[name]) for name in ("since", "seen", "gone"))
        return cls(vectors, numbers, micros(vectors["ts"]), since, seen, gone, depth)

    def newest(self, moments: Ints) -> tuple[Ints, dict[int, int]]:
        """For each moment the row of each instrument's newest vector, -1 where there is none.

        Also the instruments of which what was the newest was taken away, and what it gives way to is not here: the first such moment.
        """
        rows, missed = np.full((len(moments), len(self.depth)), -1), dict[int, int]()
        for number, (start, stop) in enumerate(zip(self._starts[:-1].tolist(), self._starts[1:].tolist(), strict=True)):
            place = np.searchsorted(self._seen[start:stop], moments, side="right") - 1
            found = np.where(place >= 0, self._best[start + place], -1) if stop > start else rows[:, number]
            if (self._ends[found] <= moments).any():
                found = self._swept(self._order[start:stop], moments)
            rows[:, number] = found
            if self.depth[number] > ALL and (lost := np.flatnonzero(found < 0)).size:
                missed[number] = int(moments[lost[0]])
        return rows, missed

    def changes(self, after: int, until: int, start: int) -> Ints:
        """The moments in `(after, until]` at which something comes to be seen or is no longer, and the first of all, `start`."""
        times = np.concatenate((self.seen, self.gone, [start]))
        return np.unique(times[(times > after) & (times <= until)])

    def identities(self, rows: Ints) -> Ints:
        """What tells the vectors of some rows from one another, whichever timeline they are in: `ts` and `since`, -1 for none."""
        return np.stack([np.append(column, -1)[rows] for column in (self.ts, self.since)])

    def after(self, moment: int) -> tuple[pa.Table, Ints]:
        """The rows that can be the newest after a moment, and from which opens on they are here."""
        found = self.newest(np.array([moment]))[0][0]
        depth = np.where(found >= 0, np.append(self.ts, ALL)[found], self.depth)
        kept = (self.gone > moment) & (self.ts >= depth[self.instrument])
        return self.without_outdone(moment, kept), depth

    def without_outdone(self, moment: int, kept: Bools | None = None) -> pa.Table:
        """The rows, or those `kept`, without such as a newer one outdoes that stays for ever and is seen as soon, from a moment on."""
        order = np.lexsort((self.ts, self.instrument))
        steps = (np.diff(self.instrument[order], prepend=-1) != 0) | (np.diff(self.ts[order], prepend=ALL) != 0)
        rank = np.empty(len(order), np.int64)
        rank[order] = np.cumsum(steps)
        times = np.maximum(self.seen, moment)
        order = np.lexsort((times, self.instrument))
        best = np.maximum.accumulate(np.where(self.gone[order] == FOREVER, rank[order], 0))
        together = (np.diff(self.instrument[order], append=-1) != 0) | (np.diff(times[order], append=ALL) != 0)
        ends = np.flatnonzero(together)
        outdone = np.empty(len(order), np.bool_)
        outdone[order] = rank[order] < best[ends[np.searchsorted(ends, np.arange(len(order)))]]
        return self.vectors.filter(pa.array(~outdone if kept is None else kept & ~outdone))

    @cached_property
    def _order(self) -> Ints:
        return np.lexsort((self.since, self.ts, self.seen, self.instrument))

    @cached_property
    def _starts(self) -> Ints:
        return np.searchsorted(self.instrument[self._order], np.arange(len(self.depth) + 1))

    @cached_property
    def _seen(self) -> Ints:
        return self.seen[self._order]

    @cached_property
    def _best(self) -> Ints:
        """In the order in which rows are seen: the newest of those up to here, as if none were ever taken away."""
        by_rank = np.lexsort((self.since, self.ts, self.instrument))
        rank = np.empty(len(by_rank), np.int64)
        rank[by_rank] = np.arange(len(by_rank))
        return by_rank[np.maximum.accumulate(rank[self._order])]

    @cached_property
    def _ends(self) -> Ints:
        """When each row is gone, and never for the row -1."""
        return np.append(self.gone, FOREVER)

    def _swept(self, rows: Ints, moments: Ints) -> Ints:
        """The newest of one instrument's rows, in the order in which they are seen, at each moment, where some were taken away."""
        heap, found, at = list[tuple[int, int, int]](), np.full(len(moments), -1), 0
        for number, moment in enumerate(moments.tolist()):
            while at < len(rows) and self.seen[rows[at]] <= moment:
                row = int(rows[at])
                heappush(heap, (-int(self.ts[row]), -int(self.since[row]), row))
                at += 1
            while heap and self.gone[heap[0][2]] <= moment:
                heappop(heap)
            found[number] = heap[0][2] if heap else -1
        return found


__all__ = ["ALL", "FOREVER", "Ints", "Timeline"]
