"""A batch of any columns, turned into trades, quotes or order books in their canonical schema.

A reader goes through the batches of one file after the other, for two things go on from row to row: the place among rows of one time,
where the source does not number them, and the side of a quote that a row does not repeat.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from asof.errors import DataError, did_you_mean
from asof.points import SIDES, check_books, check_quotes, check_trades
from asof.records import BOOKS, LEVELS, QUOTES, TRADES, UTC, Bools, floats, micros, nulls, one_chunk
from asof.sources.canonical import Batch, finish
from asof.sources.columns import ColumnMapping, Reader

MISSING_SIDES = ("empty", "unchanged")
"""What a quote without one of its sides may mean: nobody is there, or nothing was said about it."""
SAID = {"buy": 1.0, "b": 1.0, "bid": 1.0, "1": 1.0, "sell": -1.0, "s": -1.0, "ask": -1.0, "a": -1.0, "-1": -1.0}
"""What sources call the aggressor of a trade."""


class PointReader:
    """Reads points of one kind. `missing_side` says what a quote without one of its sides means; see `MISSING_SIDES`."""

    def __init__(self, kind: str, mapping: ColumnMapping, missing_side: str | None = None) -> None:
        if missing_side not in (None, *MISSING_SIDES):
            hint = did_you_mean(str(missing_side), list(MISSING_SIDES))
            raise DataError(f"missing side {missing_side!r} is none of {', '.join(MISSING_SIDES)}{hint}")
        self.mapping, self.missing_side = mapping, missing_side
        self._read: Callable[[Reader], dict[str, Any]] = {"trades": _trades, "quotes": _quotes, "books": _books}[kind]
        self._schema, self._check = {
            "trades": (TRADES, check_trades),
            "quotes": (QUOTES, check_quotes),
            "books": (BOOKS, check_books),
        }[kind]
        self._places: dict[str, tuple[int, int]] = {}
        self._seen: dict[tuple[str, str], tuple[float, float]] = {}

    def begin(self) -> None:
        """Before the first batch of a file: places among rows of one time begin again; sides that were seen stay."""
        self._places.clear()

    def batch(self, table: pa.Table) -> Batch:
        """The points of a batch. Raises `DataError` where a column is missing or cannot be read at all."""
        reader = Reader(table, self.mapping)
        columns: dict[str, Any] = {
            "instrument_id": reader.text("instrument_id"),
            "ts": reader.times("ts"),
            "available_at": reader.times("available_at") if reader.has("available_at") else nulls(len(table), UTC),
        }
        codes, names = _codes(columns["instrument_id"])
        columns["seq"] = (
            reader.whole_numbers("seq")
            if reader.has("seq")
            else pa.array(self._numbered(codes, names, micros(pc.fill_null(columns["ts"].cast(pa.int64()), -1))))
        )
        columns |= self._read(reader)
        if self._schema is QUOTES:
            self._fill_sides(columns, codes, names)
        canonical = pa.table([columns[name] for name in self._schema.names], schema=self._schema)
        return finish(reader.refusals, self._check, canonical)

    def _numbered(self, codes: np.ndarray, names: list[str], times: np.ndarray) -> np.ndarray:
        """The place of each row among those of its instrument and time, which may have begun in the batch before."""
        order = np.lexsort((times, codes))
        new = np.append(True, (np.diff(codes[order]) != 0) | (np.diff(times[order]) != 0)) if len(order) else np.zeros(0, np.bool_)
        starts = np.flatnonzero(new)
        lengths = np.diff(np.append(starts, len(order)))
        places = np.empty(len(order), np.int64)
        places[order] = np.arange(len(order)) - np.repeat(starts, lengths)
        for name, mine in zip(names, _of_each(codes[order], order), strict=True):  # each by time
            last, count = self._places.get(name, (-1, 0))
            places[mine[slice(*np.searchsorted(times[mine], (last, last + 1)))]] += count
            self._places[name] = int(times[mine[-1]]), int(places[mine[-1]]) + 1
        return places

    def _fill_sides(self, columns: dict[str, Any], codes: np.ndarray, names: list[str]) -> None:
        """Sides that rows do not repeat, from the row before of the same instrument, if that is what a missing side means."""
        there = {side: ~np.isnan(floats(columns[side])) for side in SIDES}
        one_sided = np.flatnonzero(there["bid"] != there["ask"])
        if self.missing_side is None and len(one_sided):
            row = int(one_sided[0])
            side = "ask" if there["bid"][row] else "bid"
            raise DataError(
                f"the quote in row {row + 1:,} of {len(codes):,} has no {side}, which may mean that nobody is there, or that it is as"
                " before: say which, --missing-side empty or unchanged"
            )
        if self.missing_side != "unchanged":
            return
        order = np.argsort(codes, kind="stable")
        for side in SIDES:
            values = [floats(columns[name]).copy() for name in (side, f"{side}_size")]
            for name, rows in zip(names, _of_each(codes[order], order), strict=True):
                self._seen[name, side] = _filled_forward(values, rows, there[side][rows], self._seen.get((name, side), (np.nan, np.nan)))
            for name, filled in zip((side, f"{side}_size"), values, strict=True):
                columns[name] = pa.array(filled, from_pandas=True)


def _filled_forward(values: list[np.ndarray], rows: np.ndarray, there: Bools, before: tuple[float, float]) -> tuple[float, float]:
    """Fill price and size of a side, in place, where the side is not there; what was seen last."""
    last = np.maximum.accumulate(np.where(there, np.arange(len(rows)), -1))
    for column, start in zip(values, before, strict=True):
        column[rows] = np.where(last < 0, start, column[rows[np.maximum(last, 0)]])
    return float(values[0][rows[-1]]), float(values[1][rows[-1]])


def _trades(reader: Reader) -> dict[str, Any]:
    side: Any = nulls(len(reader.table), pa.float64())
    if reader.has("side"):
        column = reader.column("side")
        said = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
        side = _sides(reader, column) if said else reader.numbers("side")
    elif reader.has("buyer_is_maker"):
        maker = reader.column("buyer_is_maker")
        if not pa.types.is_boolean(maker.type):
            maker = pc.utf8_lower(maker.cast(pa.string())).cast(pa.bool_())
        side = pc.if_else(maker, -1.0, 1.0)  # the seller came to the buyer who was waiting
    return {"price": reader.numbers("price"), "size": reader.numbers("size"), "side": side}


def _quotes(reader: Reader) -> dict[str, Any]:
    names = [name for side in SIDES for name in (side, f"{side}_size")]
    absent = nulls(len(reader.table), pa.float64())
    return {name: reader.numbers(name) if name in SIDES or reader.has(name) else absent for name in names}


def _sides(reader: Reader, column: pa.ChunkedArray) -> pa.Array:
    """The aggressor as text: one of `SAID`, or empty for nobody knows."""
    words = pc.utf8_lower(pc.utf8_trim_whitespace(pc.fill_null(column.cast(pa.string()), ""))).to_pylist()
    for row, word in enumerate(words):
        if word and word not in SAID:
            detail = f"side={word!r} is none of {', '.join(SAID)}; leave it empty where the aggressor is not known"
            reader.refusals.add(row, "unknown_side", detail)
    return pa.array([SAID.get(word) for word in words], pa.float64())


def _books(reader: Reader) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for name in ("bid_prices", "bid_sizes", "ask_prices", "ask_sizes"):
        column = reader.column(name)
        if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
            raise DataError(f"column {name} holds {column.type}, not lists of numbers; level 2 updates are read with --format level2")
        columns[name] = column.cast(LEVELS)
    columns["gap"] = reader.column("gap").cast(pa.bool_()) if reader.has("gap") else nulls(len(reader.table), pa.int64()).cast(pa.bool_())
    return columns


def _of_each(codes: np.ndarray, rows: np.ndarray) -> list[np.ndarray]:
    """The rows of each code, where rows stand by their codes and every code has some."""
    return np.split(rows, np.flatnonzero(np.diff(codes)) + 1) if len(rows) else []


def _codes(names: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """The instrument of each row by its number, and their names."""
    coded = one_chunk(pc.fill_null(names, "")).dictionary_encode()
    return np.asarray(coded.indices).astype(np.int64), coded.dictionary.to_pylist()
