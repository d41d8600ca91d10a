"""Symbols: which instrument traded under a ticker, and when. Tickers change, and are given to another company."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from asof.errors import DataError, did_you_mean
from asof.records import Bools, Refusals, one_chunk
from asof.sources import lean
from asof.sources.files import read_file

Days = NDArray[np.int32]
SPANS = pa.schema([("instrument_id", pa.string()), ("ticker", pa.string()), ("from", pa.date32()), ("to", pa.date32())])
"""A ticker of an instrument, from one day to another, both included; null where there is no end."""
FIRST_DAY, LAST_DAY = -(1 << 30), 1 << 30


@dataclass(frozen=True)
class Symbols:
    """The spans of tickers, by ticker and first day; a day is one of the zone."""

    spans: pa.Table
    zone: str

    @classmethod
    def of(cls, spans: pa.Table, timezone: str | None) -> Symbols:
        """The symbols of `SPANS` in any order. Raises `DataError` where a ticker is two instruments on one day."""
        begins, ends = _days(spans["from"], FIRST_DAY), _days(spans["to"], LAST_DAY)
        if (bad := np.flatnonzero(begins > ends)).size:
            row = spans.slice(int(bad[0]), 1).to_pylist()[0]
            raise DataError(f"{row['ticker']} is {row['instrument_id']} from {row['from']} to {row['to']}, which is before")
        tickers = pc.rank(one_chunk(spans["ticker"]), tiebreaker="dense").to_numpy()
        order = np.lexsort((begins, tickers))
        again = (np.diff(tickers[order]) == 0) & (begins[order][1:] <= ends[order][:-1])
        if again.any():
            one, other = (spans.slice(int(order[np.flatnonzero(again)[0] + k]), 1).to_pylist()[0] for k in (0, 1))
            raise DataError(
                f"{one['ticker']} is both {one['instrument_id']} and {other['instrument_id']} on {other['from']}: let one end before"
            )
        return cls(spans.take(pa.array(order)), timezone or "UTC")

    def instruments(self, tickers: pa.ChunkedArray, ts: pa.ChunkedArray, refusals: Refusals) -> pa.ChunkedArray:
        """The instruments of tickers at some times. One that is not in the map stays; one that is nobody's then is refused."""
        found = np.array(tickers.to_pylist(), object)
        local = pc.local_timestamp(ts.cast(pa.timestamp("us", tz=self.zone)))
        days = _days(local.cast(pa.date32(), safe=False), LAST_DAY)
        for ticker, begins, ends, names in self._series():
            mine = np.flatnonzero(_same(tickers, ticker))
            span = np.searchsorted(begins, days[mine], side="right") - 1
            held = (span >= 0) & (days[mine] <= ends[span])
            found[mine[held]] = names[span[held]]
            for row in mine[~held].tolist():
                moment = ts[row].as_py()
                if moment is not None:
                    refusals.add(row, "unmapped_ticker", f"the map names no instrument that traded as {ticker} on {moment:%Y-%m-%d}")
        return pa.chunked_array([pa.array(found, pa.string())])

    def _series(self) -> Iterator[tuple[str, Days, Days, NDArray[np.object_]]]:
        """Each ticker with the first and last days of its spans, and their instruments."""
        for ticker in pc.unique(self.spans["ticker"]).to_pylist():
            mine = self.spans.filter(pc.equal(self.spans["ticker"], ticker))
            yield ticker, _days(mine["from"], FIRST_DAY), _days(mine["to"], LAST_DAY), np.array(mine["instrument_id"].to_pylist(), object)


def _same(tickers: pa.ChunkedArray, ticker: str) -> Bools:
    return np.asarray(pc.fill_null(pc.equal(tickers, ticker), False))


def _days(column: pa.ChunkedArray, missing: int) -> Days:
    """Days since 1970."""
    return np.asarray(pc.fill_null(column.cast(pa.int32()), missing)).astype(np.int32)


def _table(path: Path) -> pa.Table:
    """A file with the columns `instrument_id`, `ticker`, and `from` and `to`, days that may be missing."""
    table = pa.concat_tables([raw.table for raw in read_file(path)], promote_options="permissive")
    for name in ("instrument_id", "ticker"):
        if name not in table.column_names:
            there = table.column_names
            raise DataError(f"{path}: there is no column {name!r}; the file has {', '.join(there)}{did_you_mean(name, there)}")
        if table[name].null_count:
            raise DataError(f"{path}: {name} is missing in row {int(np.flatnonzero(np.asarray(table[name].is_null()))[0]) + 1}")
    columns = [table[name] if name in table.column_names else pa.nulls(len(table), pa.date32()) for name in SPANS.names]
    try:
        return pa.table([column.cast(kind) for column, kind in zip(columns, SPANS.types, strict=True)], schema=SPANS)
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: from and to are days such as 2014-04-02: {error}") from None


def _lean(path: Path) -> pa.Table:
    return lean.tickers(path).cast(SPANS)


MAP_FORMATS: dict[str, Callable[[Path], pa.Table]] = {"table": _table, "lean": _lean}
"""What reads each kind of map: `table` has `instrument_id, ticker, from, to`, `lean` is a map file of Lean's."""


def read_symbols(path: Path, timezone: str | None = None, kind: str = "table") -> Symbols:
    """The symbols of a map file; its days are those of `timezone`, UTC unless it is given. Raises `DataError` where it cannot be used."""
    if kind not in MAP_FORMATS:
        raise DataError(f"map format {kind!r} is none of {', '.join(MAP_FORMATS)}{did_you_mean(kind, list(MAP_FORMATS))}")
    return Symbols.of(MAP_FORMATS[kind](path), timezone)
