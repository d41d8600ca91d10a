"""Work in pieces of bounded size: groups of instruments, stretches of one long history with its lookback in front, or of all histories."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from asof.errors import DefinitionError, NotFound, did_you_mean
from asof.jobs import across
from asof.jobs.work import Work, joined
from asof.records import BARS, UTC
from asof.stores.store import BARS_TABLE, Selection, Store
from asof.timeframes import UNITS, timeframe

MOST_PART_ROWS = 750_000
MEMORY = 2 << 30
"""What a job stays within, unless it is told otherwise."""


@dataclass(frozen=True)
class Part:
    """Instruments, the times of the bars whose vectors are wanted, and from when on bars are read for the lookback.

    `alone` tells whether there are no others between the first and the last of the instruments.
    """

    instruments: tuple[str, ...]
    alone: bool
    rows: int
    start: datetime | None
    end: datetime
    read_from: datetime | None = None

    def bars(self, work: Work) -> Selection:
        """The bars that are read."""
        return self._selection(work, self.read_from)

    def wanted(self, work: Work) -> Selection:
        """The bars whose vectors are wanted."""
        return self._selection(work, self.start)

    def _selection(self, work: Work, start: datetime | None) -> Selection:
        if self.alone:
            span = (self.instruments[0], self.instruments[-1])
            return Selection(work.timeframe, start=start, end=self.end, known_at=work.known_at, span=span)
        return Selection(work.timeframe, self.instruments, start, self.end, work.known_at)


@dataclass(frozen=True)
class Pieces:
    """The pieces of a work, and the requested instruments that have no bars."""

    parts: tuple[Part, ...]
    without_bars: tuple[str, ...]

    @property
    def rows(self) -> int:
        """About how many vectors there will be."""
        return sum(part.rows for part in self.parts)


def memory_bytes(text: str) -> int:
    """Bytes of an amount such as `512MB` or `2GB`."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGT])i?B?", text.strip(), re.IGNORECASE)
    if not found:
        raise DefinitionError(f"memory {text!r} is not an amount such as 512MB or 2GB")
    amount = int(float(found[1]) * 1024 ** ("KMGT".index(found[2].upper()) + 1))
    if amount < 256 << 20:
        raise DefinitionError(f"memory {text!r} is less than the 256MB that a backfill needs")
    return amount


def part_rows(memory: int, features: int) -> int:
    """How many bars a part may have so that a third of `memory` holds two parts' bars and vectors, and the store has the rest."""
    return int(np.clip(memory // 6 // (400 + 32 * features), 20_000, MOST_PART_ROWS))


POINTS_A_DAY = 1_000_000
"""Trades, quotes and books that a busy instrument may have in a day; how many there are nobody knows before they are read."""


def market_rows(memory: int, timeframe_text: str) -> int:
    """How many bars a part may have so that the trades, quotes and books of as many busy instruments or days fit a third of `memory`."""
    return max(1, int(memory / 3 / 200 / POINTS_A_DAY * UNITS["d"] / timeframe(timeframe_text)))


def pieces(
    work: Work,
    instruments: tuple[str, ...] | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    memory: int = MEMORY,
) -> Pieces:
    """The bars that have closed, of some instruments or all, in `[start, end]`. Raises `NotFound` where there are none at all."""
    end = min(end or work.last_closed, work.last_closed)
    spans = work.store.spans(work.timeframe, work.known_at)
    known = spans["instrument_id"].to_pylist()
    wanted = known if instruments is None else sorted(set(instruments))
    without = tuple(sorted(set(wanted) - set(known)))
    if not set(wanted) & set(known):
        raise NotFound(_nothing(work.store, work.timeframe, known, without))
    rows = part_rows(memory, len(work.feature_set.features))
    if work.feature_set.market:
        rows = min(rows, market_rows(memory, work.timeframe))
    if work.plan.crosses:
        return Pieces(tuple(_parts_across(work, spans, rows, instruments, start, end)), without)
    spans = spans.filter(pc.is_in(spans["instrument_id"], pa.array(wanted)))
    return Pieces(tuple(_parts(work, spans, rows, start, end, alone=instruments is None)), without)


def _parts(work: Work, spans: pa.Table, rows: int, start: datetime | None, end: datetime, *, alone: bool) -> Iterator[Part]:
    """The work in pieces of at most `rows` bars (a group always has one instrument at least), in the order of the instruments.

    `alone` tells whether the spans are of all instruments that have such bars.
    """
    group: list[str] = []
    size = 0
    for span in spans.to_pylist():
        if (start and span["last"] < start) or span["first"] > end:
            continue
        if size + span["bars"] > rows and group:
            yield Part(tuple(group), alone, size, start, end)
            group, size = [], 0
        if span["bars"] > rows:
            yield from _stretches(work, span["instrument_id"], rows, start, end)
        else:
            group.append(span["instrument_id"])
            size += span["bars"]
    if group:
        yield Part(tuple(group), alone, size, start, end)


def _parts_across(
    work: Work, spans: pa.Table, rows: int, instruments: tuple[str, ...] | None, start: datetime | None, end: datetime
) -> Iterator[Part]:
    """The work in stretches of time, each of all the instruments, for each of their vectors needs the others' bars."""
    mine = spans if instruments is None else spans.filter(pc.is_in(spans["instrument_id"], pa.array(instruments)))
    ends = pc.min(mine["first"]).as_py(), pc.max(mine["last"]).as_py()
    first, last = max(start or ends[0], ends[0]), min(end, ends[1])
    if first > last:
        return
    names, total = tuple(mine["instrument_id"].to_pylist()), pc.sum(mine["bars"]).as_py()
    stretches = across.cuts(work, spans, first, last, rows)
    for begin, stop in stretches:
        yield Part(names, instruments is None, total // len(stretches), begin, stop)


def _stretches(work: Work, instrument: str, rows: int, start: datetime | None, end: datetime) -> Iterator[Part]:
    cuts = work.store.cuts(work.timeframe, instrument, rows, work.feature_set.lookback, work.known_at)
    for (first, early), following in zip(cuts, [*cuts[1:], None], strict=True):
        last = following[0] - timedelta(microseconds=1) if following else end
        if first > end or (start and last < start):
            continue
        yield Part((instrument,), True, rows, max(first, start) if start else first, min(last, end), early)


def computed(work: Work, part: Part) -> pa.Table:
    """The vectors of a part, by instrument and time."""
    if work.plan.crosses and part.start:
        wanted = None if part.alone else part.instruments
        vectors = across.vectors_across(work, wanted, part.start, part.end)
        return vectors.filter(across.of_stretch(vectors, wanted, part.start, part.end))
    chosen = part.bars(work)
    bars = joined(work.store.read(BARS_TABLE, chosen, work.columns, ordered=False), BARS)
    vectors = work.vectors(bars, chosen)
    return vectors.filter(pc.greater_equal(vectors["ts"], pa.scalar(part.start, UTC))) if part.start else vectors


def _nothing(store: Store, timeframe: str, known: list[str], without: tuple[str, ...]) -> str:
    if not known:
        others = sorted(set(store.spans()["timeframe"].to_pylist()))
        there = f"; it has bars of {', '.join(others)}" if others else ": ingest some first (asof ingest bars FILE --timeframe 1d)"
        return f"the store has no {timeframe} bars{there}"
    return f"the store has no {timeframe} bars of {', '.join(without)}{did_you_mean(without[0], known) if without else ''}"
