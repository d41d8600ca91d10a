"""Work across instruments: the bars that vectors depend on, of all members of universes; and work cut into pieces by time.

1. `bars_across` goes from the wanted vectors back: how far sections are looked at, through all stages; then it reads the bars of everybody
   who could be a member, from the earliest of these moments on, with the lookback before it that each instrument's values need.
2. `vectors_across` computes the vectors of a stretch of time of those bars. What lies before it is only looked at.
3. `time_parts` cuts work by time, for each moment needs all members.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from asof.engine.panel import Floats, Ints
from asof.engine.plan import Plan, Staged
from asof.jobs.work import EPOCH, Work, joined, moment, schema_of
from asof.operators import SECTION_SHAPES
from asof.records import UTC, micros
from asof.stores.store import BARS_TABLE, SPANS, Selection
from asof.timeframes import UNITS
from asof.timeframes import timeframe as timeframe_micros

KEYS = ("instrument_id", "ts")
SPARE = 7 * UNITS["d"]
"""Beside twice the lookback, so much more is read of days at once: weekends and holidays. Where that is not enough, it is read again."""
STEPS = 2_000
"""Moments at which the number of bars so far is estimated, to cut work by time."""


def section_nodes(plan: Plan) -> Iterator[Staged]:
    """The operators across instruments of a plan, the last stage's first."""
    for stage in reversed(plan.stages):
        yield from (node for node in stage.nodes if node.operator.shape in SECTION_SHAPES)


def bars_across(work: Work, wanted: tuple[str, ...] | None, start: datetime, end: datetime) -> pa.Table:
    """All bars that the vectors of some instruments (all if None) of bars that open in `[start, end]` depend on, and more."""
    looked_at, reach = _looked_at(work, wanted, start, end)
    return looked_at.bars(reach, work.columns)


def first_across(work: Work, wanted: tuple[str, ...], start: datetime, end: datetime) -> tuple[tuple[str, ...] | None, datetime]:
    """Whose bars the vectors of some instruments depend on, all if None, and the open of the earliest of them."""
    looked_at, reach = _looked_at(work, wanted, start, end)
    return looked_at.names, looked_at.first(reach)


def _looked_at(work: Work, wanted: tuple[str, ...] | None, start: datetime, end: datetime) -> tuple[Stretch, int]:
    """The stretch in which sections are looked at, and how many bars before it their members' values need."""
    names, need = everybody(work, wanted, end), dict[str, datetime]()
    _look_back(work, wanted, start, end, work.plan.looked_at, need)
    for node in section_nodes(work.plan):
        if node.column in need:
            _look_back(work, names, need[node.column], end, node.looked_at, need)
    reach = max(work.plan.lookback, *(node.lookback for node in section_nodes(work.plan)))
    return Stretch(work, names, min(need.values(), default=start), end), reach - 1


def everybody(work: Work, wanted: tuple[str, ...] | None, end: datetime) -> tuple[str, ...] | None:
    """The wanted instruments and all that ever were in a universe; None for all that have bars."""
    universes = {node.members.partition(".")[2] for node in section_nodes(work.plan)}
    if wanted is None or "" in universes:
        return None
    rows = work.memberships(end)
    rows = rows.filter(pc.and_(pc.is_in(rows["scheme"], pa.array(sorted(universes))), pc.is_valid(rows["value"])))
    return tuple(sorted({*wanted, *pc.unique(rows["instrument_id"]).to_pylist()}))


def _look_back(
    work: Work, names: tuple[str, ...] | None, start: datetime, end: datetime, looked_at: Mapping[str, int], need: dict[str, datetime]
) -> None:
    """Note from when on sections are looked at by the values that some instruments have from `start` on."""
    for column, bars in looked_at.items():
        first = Stretch(work, names, start, end).first(bars - 1)
        need[column] = min(first, need.get(column, first))


@dataclass(frozen=True)
class Stretch:
    """The bars of some instruments, or of all, that open in `[start, end]`; and those before them."""

    work: Work
    names: tuple[str, ...] | None
    start: datetime
    end: datetime

    def first(self, reach: int) -> datetime:
        """The open of the earliest of the `reach` bars before the first bar of an instrument that has one in the stretch."""
        if not reach:
            return self.start
        bars = self.bars(reach, KEYS)
        codes, ts = codes_of(bars["instrument_id"]), micros(bars["ts"])
        start = _microseconds(self.start)
        order = np.lexsort((-ts, codes))
        order = order[ts[order] < start]
        place = np.arange(len(order)) - np.searchsorted(codes[order], codes[order])
        return moment(ts[order][place < reach].min(initial=start))

    def last(self, reach: int, *, everyone: bool = False) -> datetime:
        """The open of the latest of the `reach` bars behind the stretch, of an instrument that has one in it, or of `everyone`."""
        work, closed = self.work, self.work.last_closed
        if not reach or self.end >= closed:
            return self.end
        guess = min(self.end + self._spare(reach), closed)
        found = joined(
            work.store.read(BARS_TABLE, replace(self._selection(self.start), end=guess), KEYS, ordered=False), schema_of(BARS_TABLE, KEYS)
        )
        end = pa.scalar(self.end, UTC)
        there = self.names if everyone else pc.unique(found.filter(pc.less_equal(found["ts"], end))["instrument_id"]).to_pylist()
        behind = found.filter(pc.and_(pc.greater(found["ts"], end), pc.is_in(found["instrument_id"], pa.array(there, pa.string()))))
        enough = {row["values"] for row in pc.value_counts(behind["instrument_id"]).to_pylist() if row["counts"] >= reach}
        if guess < closed and (short := sorted(set(there or ()) - enough)):
            later = work.store.around(work.timeframe, _at(short, guess), reach, KEYS, work.known_at)
            behind = pa.concat_tables([behind, later.filter(pc.greater(later["ts"], pa.scalar(guess, UTC)))])
        return _furthest(behind, reach, self.end)

    def bars(self, reach: int, columns: tuple[str, ...]) -> pa.Table:
        """The bars of every instrument that has one in the stretch, and at least the `reach` bars before, as far as there are any."""
        work = self.work
        guess = self._guess(reach)
        found = joined(work.store.read(BARS_TABLE, self._selection(guess), columns, ordered=False), schema_of(BARS_TABLE, columns))
        start = pa.scalar(self.start, UTC)
        there = pc.unique(found.filter(pc.greater_equal(found["ts"], start))["instrument_id"])
        found = found.filter(pc.is_in(found["instrument_id"], there))
        before = found.filter(pc.less(found["ts"], start))["instrument_id"]
        enough = {row["values"] for row in pc.value_counts(before).to_pylist() if row["counts"] >= reach}
        short = [name for name in there.to_pylist() if name not in enough] if reach else []
        if not short:
            return found
        earlier = work.store.around(work.timeframe, _at(sorted(short), guess), reach, columns, work.known_at)
        return pa.concat_tables([found, earlier.filter(pc.less(earlier["ts"], pa.scalar(guess, UTC)))])

    def _guess(self, reach: int) -> datetime:
        """From when on bars are read at first."""
        return self.start - min(self._spare(reach), self.start - EPOCH)

    def _spare(self, reach: int) -> timedelta:
        """In how much time so many bars mostly lie."""
        step = timeframe_micros(self.work.timeframe)
        return timedelta(microseconds=2 * reach * step + (SPARE if reach and step >= UNITS["d"] else 0))

    def _selection(self, start: datetime) -> Selection:
        return Selection(self.work.timeframe, self.names, start, self.end, self.work.known_at)


def _at(names: list[str], at: datetime) -> pa.Table:
    """One moment of some instruments, as `SPANS`."""
    ends = pa.array([at] * len(names), UTC)
    return pa.table([pa.array(names, pa.string()), ends, ends], schema=SPANS)


def _furthest(behind: pa.Table, reach: int, end: datetime) -> datetime:
    """The open of the last of the first `reach` bars of an instrument; `end` where there are none."""
    codes, ts = codes_of(behind["instrument_id"]), micros(behind["ts"])
    order = np.lexsort((ts, codes))
    place = np.arange(len(order)) - np.searchsorted(codes[order], codes[order])
    return moment(ts[order][place < reach].max(initial=_microseconds(end)))


def vectors_across(work: Work, wanted: tuple[str, ...] | None, start: datetime, end: datetime) -> pa.Table:
    """The vectors of some instruments (all if None) of bars that open in `[start, end]`, and what is made of all that was looked at.

    `of_stretch` tells which are which; what lies before the stretch has not all that it depends on.
    """
    bars = bars_across(work, wanted, start, end)
    return work.vectors(bars, Selection(instruments=tuple(sorted(pc.unique(bars["instrument_id"]).to_pylist()))))


def of_stretch(rows: pa.Table, wanted: tuple[str, ...] | None, start: datetime, end: datetime) -> pa.ChunkedArray:
    """Which rows are of some instruments, and in a stretch of time."""
    inside = pc.and_(pc.greater_equal(rows["ts"], pa.scalar(start, UTC)), pc.less_equal(rows["ts"], pa.scalar(end, UTC)))
    return inside if wanted is None else pc.and_(inside, pc.is_in(rows["instrument_id"], pa.array(wanted, pa.string())))


def cuts(work: Work, spans: pa.Table, start: datetime, end: datetime, rows: int) -> list[tuple[datetime, datetime]]:
    """The time from `start` to `end` in stretches of about so many bars, of all instruments that have `spans`.

    The bars of a stretch are at least as many as those that it looks back at.
    """
    reach = max(work.plan.lookback, *(node.lookback for node in section_nodes(work.plan)))
    rows = max(rows, reach * len(spans))
    first, last, counts = micros(spans["first"]), micros(spans["last"]), spans["bars"].to_numpy()
    at = np.linspace(_microseconds(start), _microseconds(end), STEPS)
    so_far = sum((_so_far(at, *span) for span in zip(first, last, counts, strict=True)), np.zeros(STEPS))
    pieces = max(1, int(np.ceil((so_far[-1] - so_far[0]) / rows)))
    inner = np.interp(np.linspace(so_far[0], so_far[-1], pieces + 1)[1:-1], so_far, at).astype(np.int64)
    begins = np.unique(np.append(_microseconds(start), inner)).tolist()
    moments = [moment(begin) for begin in begins[1:]]
    return list(zip([start, *moments], [*(m - timedelta.resolution for m in moments), end], strict=True))


def _so_far(at: Floats, first: int, last: int, count: int) -> Floats:
    """About how many bars an instrument has up to some moments."""
    share: Floats = np.clip((at - first) / max(last - first, 1), 0.0, 1.0)
    return count * share


def codes_of(names: pa.ChunkedArray) -> Ints:
    """A number for each name, the same for the same."""
    return np.asarray(pc.index_in(names, pc.unique(names)).combine_chunks()).astype(np.int64)


def _microseconds(at: datetime) -> int:
    return (at - EPOCH) // timedelta.resolution
