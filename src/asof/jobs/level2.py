"""Order books from files of level 2 updates: a snapshot, and the deltas that follow it.

1. A file's rows are read, a row for each level; those that follow one another with one id are one update. Rows that cannot be used are
   refused, and their update makes a gap.
2. For each instrument the engine applies the updates in the order they came, from where the file before ended.
3. Each update that was applied gives a row: the book as it left it. Deltas before the first snapshot are refused; those that the book had
   already give nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from asof.engine.books import APPLIED, TOO_EARLY, Levels, Made, Updates, books
from asof.errors import DataError
from asof.records import BOOKS, LEVELS, UTC, floats, nulls, one_chunk
from asof.sources.columns import ColumnMapping, Reader
from asof.sources.files import RawBatch, RefusedLine, read_file

COLUMNS = ("instrument_id", "ts", "available_at", "update_id", "first_update_id", "kind", "side", "price", "size")
KINDS = {"snapshot": True, "delta": False, "update": False}
BOOK_SIDES = {"b": 0, "bid": 0, "buy": 0, "a": 1, "ask": 1, "sell": 1}
DEPTH = 20
"""Levels of each side that a book has, unless another number is asked for."""


@dataclass
class Level2:
    """What reads level 2 files one after the other. `depth` is how many levels of each side its books have."""

    mapping: ColumnMapping
    depth: int = DEPTH
    snapshots: frozenset[Path] = frozenset()
    """Files that have no column `kind`, and hold snapshots; those that have none otherwise hold deltas."""
    levels: dict[str, Levels] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise DataError(f"depth={self.depth} is not at least 1")

    def __call__(self, path: Path) -> Iterator[RawBatch]:
        """The books of a file, as one batch. Raises `DataError` where a column is missing or cannot be read at all."""
        raws = list(read_file(path))
        rows = pa.concat_tables([raw.table for raw in raws], promote_options="default")
        numbers = np.concatenate([raw.numbers for raw in raws])
        refused = [line for raw in raws for line in raw.refused]
        read, bad = _read(Reader(rows, self.mapping), path in self.snapshots)
        refused += _refused(rows, numbers, bad)
        made = []
        for name in pc.unique(read["instrument_id"]).to_pylist():
            mine = np.flatnonzero(np.asarray(pc.equal(read["instrument_id"], name)))
            some, ends, early = self._books(name, read.take(pa.array(mine)))
            made.append((some, numbers[mine[ends]]))
            refused += _refused(rows, numbers, {int(mine[row]): _EARLY for row in early})
        tables = [BOOKS.empty_table(), *(table for table, _ in made)]
        yield RawBatch(pa.concat_tables(tables), np.concatenate([np.zeros(0, np.int64), *(ends for _, ends in made)]), refused)

    def _books(self, name: str, rows: pa.Table) -> tuple[pa.Table, np.ndarray, np.ndarray]:
        """The books of one instrument, the last row of each one's update, and the rows that came before there was a book."""
        whole = np.asarray(rows["whole"])
        first, last = (np.asarray(rows[column]) for column in ("first_update_id", "update_id"))
        new = np.append(True, (np.diff(whole) != 0) | (np.diff(first) != 0) | (np.diff(last) != 0))
        starts = np.flatnonzero(new)
        ends = np.append(starts[1:], len(rows))
        good = np.asarray(rows["good"])
        before = np.append(0, np.cumsum(good))
        updates = Updates(
            np.asarray(rows["side"])[good],
            floats(rows["price"])[good],
            floats(rows["size"])[good],
            before[np.append(starts, len(rows))],
            first[starts],
            last[starts],
            whole[starts],
            np.logical_or.reduceat(~good, starts),
        )
        made = books(self.levels.setdefault(name, Levels()), updates, self.depth)
        kept = np.flatnonzero(made.became == APPLIED)
        early = np.flatnonzero(np.repeat(made.became == TOO_EARLY, ends - starts))
        return _tabled(name, rows, made, kept, ends - 1), ends[kept] - 1, early


_EARLY = ("delta_before_snapshot", "a delta before the first snapshot, which does not reach beyond it: there is no book to apply it to")


def _tabled(name: str, rows: pa.Table, made: Made, kept: np.ndarray, ends: np.ndarray) -> pa.Table:
    columns: dict[str, Any] = {
        "instrument_id": pa.repeat(pa.scalar(name, pa.string()), len(kept)),
        "seq": pa.array(made.seq[kept]),
        "gap": pa.array(made.gap[kept]),
    }
    at = pa.array(ends[kept])
    for column in ("ts", "available_at"):
        columns[column] = rows[column].take(at)
    there = np.arange(made.prices.shape[2]) < made.depth[kept][:, :, None]
    for s, side in enumerate(("bid", "ask")):
        offsets = pa.array(np.append(0, np.cumsum(made.depth[kept, s])).astype(np.int32))
        for what, values in (("prices", made.prices), ("sizes", made.sizes)):
            columns[f"{side}_{what}"] = pa.ListArray.from_arrays(offsets, pa.array(values[kept, s][there[:, s]])).cast(LEVELS)
    return pa.table([columns[column] for column in BOOKS.names], schema=BOOKS)


def _read(reader: Reader, snapshots: bool) -> tuple[pa.Table, dict[int, tuple[str, str]]]:
    """The rows in types of ours, `good` where a level can be used; and why the others cannot."""
    n = len(reader.table)
    side, whole = _coded(reader, "side", BOOK_SIDES), np.full(n, snapshots)
    if reader.has("kind"):
        whole = _coded(reader, "kind", {k: int(v) for k, v in KINDS.items()}) == 1
    price, size = floats(reader.numbers("price")), floats(reader.numbers("size"))
    ids = _ids(reader, "update_id")
    first = _ids(reader, "first_update_id", ids) if reader.has("first_update_id") else ids
    ts, known = reader.times("ts"), reader.times("available_at") if reader.has("available_at") else nulls(n, UTC)
    instruments = pc.fill_null(reader.text("instrument_id"), "")
    _refuse(reader, np.asarray(ts.is_null()), "missing_time", "ts is missing")
    _refuse(reader, ~((price > 0) & (price < np.inf)), "price_not_positive", "price={} is not a number above 0", price)
    _refuse(reader, ~((size >= 0) & (size < np.inf)), "negative_size", "size={} is not a number of at least 0", size)
    why: dict[int, tuple[str, str]] = {}
    for row, reason, detail in zip(reader.refusals.rows, reader.refusals.reasons, reader.refusals.details, strict=True):
        why.setdefault(row, (reason, detail))
    good = np.ones(n, np.bool_)
    good[list(why)] = False
    columns = {"instrument_id": instruments, "ts": _nearest(ts), "available_at": known, "side": side, "price": price, "size": size}
    return pa.table({**columns, "update_id": ids, "first_update_id": first, "whole": whole, "good": good}), why


def _nearest(ts: pa.ChunkedArray) -> pa.Array:
    """Times, where one is missing that of the row before: its level is refused, and its update must have some time."""
    return pc.fill_null_forward(one_chunk(ts) if isinstance(ts, pa.ChunkedArray) else ts)


def _refuse(reader: Reader, bad: np.ndarray, reason: str, detail: str, shown: np.ndarray | None = None) -> None:
    for row in np.flatnonzero(bad):
        reader.refusals.add(int(row), reason, detail if shown is None else detail.format(shown[row]))


def _coded(reader: Reader, name: str, words: dict[str, int]) -> np.ndarray:
    """A column of words as what they stand for; other words are refused."""
    coded = one_chunk(pc.utf8_lower(pc.fill_null(reader.text(name), ""))).dictionary_encode()
    known = coded.dictionary.to_pylist()
    codes = np.asarray(coded.indices)
    for code, word in enumerate(known):
        if word not in words:
            _refuse(reader, codes == code, f"unknown_{name}", f"{name}={word!r} is none of {', '.join(words)}")
    meant: np.ndarray = np.array([words.get(word, 0) for word in known], np.int64)[codes]
    return meant


def _ids(reader: Reader, name: str, otherwise: np.ndarray | None = None) -> np.ndarray:
    column = reader.whole_numbers(name)
    if otherwise is not None:  # a snapshot has no first
        column = pc.coalesce(column, pa.array(otherwise))
    if column.null_count:
        row = int(np.flatnonzero(np.asarray(column.is_null()))[0])
        raise DataError(f"{name} is missing in row {row + 1:,} of level 2: without it no gap can be seen")
    ids: np.ndarray = np.asarray(column.combine_chunks())
    return ids


def _refused(rows: pa.Table, numbers: np.ndarray, why: dict[int, tuple[str, str]]) -> list[RefusedLine]:
    """Refused rows as lines of the file."""
    found = sorted(why)
    shown = rows.take(pa.array(found, pa.int64()))
    shown = pa.table([c.cast(pa.string()) if pa.types.is_temporal(c.type) else c for c in shown.columns], names=shown.column_names)
    records = shown.to_pylist()
    return [RefusedLine(int(numbers[row]), *why[row], json.dumps(record, default=str)) for row, record in zip(found, records, strict=True)]
