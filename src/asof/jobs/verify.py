"""Verify: stored vectors against what their inputs give, bit for bit.

1. The bars that have closed are computed again from what is stored, a piece at a time.
2. Each piece is laid beside the stored vectors of the same bars, by key, and every compared column bit by bit.
3. What differs is counted, and the first differences are kept, with both values.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from asof.jobs.parts import MEMORY, Part, computed, pieces
from asof.jobs.work import Work, joined
from asof.records import Bools
from asof.stores.store import Table

EXAMPLES = 5
"""Differences that are kept to be shown."""
KEY = ("instrument_id", "ts")


@dataclass(frozen=True)
class Difference:
    """A vector that is not what it should be: `stored` or `computed` is None where there is none at all."""

    instrument: str
    ts: datetime
    column: str
    stored: object
    computed: object


@dataclass(frozen=True)
class Verified:
    """How many vectors are equal to the last bit, how many are not, are missing, or should not be there; the first that are wrong."""

    equal: int = 0
    different: int = 0
    missing: int = 0
    extra: int = 0
    examples: tuple[Difference, ...] = ()

    @property
    def rows(self) -> int:
        """Vectors that were looked at."""
        return self.equal + self.different + self.missing + self.extra

    @property
    def right(self) -> bool:
        """Whether nothing is wrong."""
        return self.rows == self.equal

    def __add__(self, other: Verified) -> Verified:
        """What both found."""
        return Verified(
            self.equal + other.equal,
            self.different + other.different,
            self.missing + other.missing,
            self.extra + other.extra,
            (*self.examples, *other.examples)[:EXAMPLES],
        )


def verify(
    work: Work,
    *,
    instruments: tuple[str, ...] | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    memory: int = MEMORY,
    made: Callable[[Work, Part], pa.Table] = computed,
) -> Iterator[tuple[Verified, int]]:
    """What each piece holds, and how many vectors there are in all; `made` gives what they should be.

    Raises `NotFound` where there are no bars.
    """
    todo = pieces(work, instruments, start, end, memory)
    for part in todo.parts:
        yield compare(work.table, stored(work, part), made(work, part)), todo.rows


def some(work: Work, instruments: tuple[str, ...] | None, sample: int, seed: int) -> tuple[str, ...]:
    """So many of the instruments that have bars, always the same for one seed."""
    names = work.store.spans(work.timeframe)["instrument_id"].to_pylist()
    chosen = sorted(set(names) & set(instruments)) if instruments else names
    return tuple(sorted(random.Random(seed).sample(chosen, min(sample, len(chosen)))))  # noqa: S311  # a choice to be made again


def stored(work: Work, part: Part) -> pa.Table:
    """The vectors of a part as the store has them."""
    return joined(work.store.read(work.table, part.wanted(work)), work.table.schema)


def compare(table: Table, kept: pa.Table, made: pa.Table) -> Verified:
    """Two tables of vectors of one timeframe, row by row of their keys."""
    there, here = (t.select(KEY).append_column(name, pa.array(np.arange(len(t)))) for t, name in ((kept, "stored"), (made, "made")))
    both = there.join(here, list(KEY), join_type="full outer")
    missing, extra = both.filter(pc.is_null(both["stored"])), both.filter(pc.is_null(both["made"]))
    pairs = both.filter(pc.and_(pc.is_valid(both["stored"]), pc.is_valid(both["made"]))).sort_by("made")
    one, other = kept.take(pairs["stored"]), made.take(pairs["made"])
    wrong = {name: differs(one[name], other[name]) for name in table.compared}
    rows = np.logical_or.reduce([np.zeros(len(pairs), np.bool_), *wrong.values()])
    return Verified(
        len(pairs) - int(rows.sum()), int(rows.sum()), len(missing), len(extra), tuple(_examples(one, other, wrong, rows, missing, extra))
    )


def differs(one: pa.ChunkedArray, other: pa.ChunkedArray) -> Bools:
    """Where two columns have not the same bits, or one has a value where the other has none."""
    if pa.types.is_list(one.type):
        one, other = (pc.binary_join(column, "|") for column in (one, other))
    if pa.types.is_floating(one.type):
        bits = [pa.array(c.to_numpy(zero_copy_only=False).view(np.int64), mask=np.asarray(pc.is_null(c))) for c in (one, other)]
        one, other = (pa.chunked_array([values]) for values in bits)
    same = pc.fill_null(pc.equal(one, other), False)
    neither = pc.and_(pc.is_null(one), pc.is_null(other))
    return ~np.asarray(pc.or_(same, neither))


def _examples(
    one: pa.Table, other: pa.Table, wrong: dict[str, Bools], rows: Bools, missing: pa.Table, extra: pa.Table
) -> Iterable[Difference]:
    for row in np.flatnonzero(rows)[:EXAMPLES]:
        kept, made = one.slice(int(row), 1).to_pylist()[0], other.slice(int(row), 1).to_pylist()[0]
        name = next(name for name, differs in wrong.items() if differs[row])
        yield Difference(kept["instrument_id"], kept["ts"], name, kept[name], made[name])
    for key in missing.slice(0, EXAMPLES).to_pylist():
        yield Difference(key["instrument_id"], key["ts"], "", None, "a vector")
    for key in extra.slice(0, EXAMPLES).to_pylist():
        yield Difference(key["instrument_id"], key["ts"], "", "a vector", None)
