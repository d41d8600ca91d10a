"""Lean's factor files and map files, as QuantConnect's engine keeps them: what adjusts prices, and which tickers a company has had.

Each comes as Lean has it (`aig.csv`, no header, days as 20150630, the instrument by the file's name) or as a table of many companies.
A row's factors hold for prices up to its day, that included, and look back from the last row: the next row's are what is left of them
behind its ex-date. The first row tells only where the data begins.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from asof.errors import DataError
from asof.sources.columns import ColumnMapping, Reader
from asof.sources.files import RawBatch, read_file

FACTORS = ("instrument_id", "date", "price_factor", "split_factor")
MAP = ("permtick", "until_date", "mapped_symbol")


def actions(path: Path, mapping: ColumnMapping) -> Iterator[RawBatch]:
    """The actions that a factor file tells of, for each step between two rows of an instrument one, where it is one.

    `split` is the later split factor by the earlier one, `dividend_factor` the earlier price factor by the later, `ts` the day after the
    earlier row's. Raises `DataError` where the file is not such a one.
    """
    rows = _rows(path, FACTORS, mapping)
    order = np.lexsort((_days(rows["date"]), np.asarray(pc.rank(rows["instrument_id"].combine_chunks(), tiebreaker="dense"))))
    rows = rows.take(pa.array(order))
    names, days = np.array(rows["instrument_id"].to_pylist(), object), _days(rows["date"])
    price, split = (np.asarray(rows[name].cast(pa.float64()).to_numpy(zero_copy_only=False)) for name in FACTORS[2:])
    with np.errstate(divide="ignore", invalid="ignore"):  # a factor of 0 is refused later, with its row
        splits, dividends = split[1:] / split[:-1], price[:-1] / price[1:]
    steps = np.flatnonzero((names[1:] == names[:-1]) & ((splits != 1.0) | (dividends != 1.0)))
    made = {
        "instrument_id": pa.array(names[steps], pa.string()),
        "ts": pa.array(days[steps] + 1, pa.int32()).cast(pa.date32()),
        "split": pa.array(splits[steps]),
        "dividend_factor": pa.array(dividends[steps]),
    }
    yield RawBatch(pa.table(made), order[steps] + 1)


def tickers(path: Path) -> pa.Table:
    """The tickers of a map file: `instrument_id, ticker, from, to`, both days included. The first row's day is where it begins."""
    rows = _rows(path, MAP, ColumnMapping())
    found = sorted(zip(*(rows[name].to_pylist() for name in MAP), strict=True))
    made = []
    for (before, ended, _), (instrument, until, ticker) in zip([(None, date.min, ""), *found], found, strict=False):
        begins = date.fromordinal(ended.toordinal() + 1) if before == instrument else until
        made.append({"instrument_id": instrument, "ticker": ticker, "from": begins, "to": until})
    return pa.Table.from_pylist(
        made, schema=pa.schema([("instrument_id", pa.string()), ("ticker", pa.string()), ("from", pa.date32()), ("to", pa.date32())])
    )


def _rows(path: Path, names: tuple[str, ...], mapping: ColumnMapping) -> pa.Table:
    """The columns of a file of either kind."""
    if path.suffix.lower() == ".csv" and path.is_file() and path.read_text(encoding="utf-8", errors="replace")[:1].isdigit():
        return _headless(path, names)
    reader = Reader(pa.concat_tables([raw.table for raw in read_file(path)]), mapping)
    columns = {}
    for name in names:
        if name in ("date", "until_date"):
            columns[name] = _dates(path, name, reader.column(name))
        else:
            columns[name] = reader.numbers(name) if name.endswith("_factor") else reader.text(name)
    if reader.refusals.rows:
        raise DataError(f"{path}, row {reader.refusals.rows[0] + 1}: {reader.refusals.details[0]}")
    return pa.table(columns)


def _headless(path: Path, names: tuple[str, ...]) -> pa.Table:
    """A file as Lean has it; its name is the instrument's."""
    instrument, rows = path.stem.upper(), []
    with path.open(newline="", encoding="utf-8") as lines:
        for number, line in enumerate(csv.reader(lines), 1):
            try:
                day, *rest = line[: len(names) - 1]
                values = [float(v) if n.endswith("_factor") else v.upper() for n, v in zip(names[2:], rest, strict=True)]
                rows.append(dict(zip(names, (instrument, datetime.strptime(day, "%Y%m%d").date(), *values), strict=True)))  # noqa: DTZ007  # a day
            except ValueError as error:
                raise DataError(f"{path} line {number}: {','.join(line)!r} is not {', '.join(names[1:])}: {error}") from None
    return pa.Table.from_pylist(rows)


def _dates(path: Path, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        days = column.cast(pa.date32())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"{path}: {name} holds {column.type}, not days such as 2015-06-30: {error}") from None
    if days.null_count:
        raise DataError(f"{path}: {name} is missing in row {int(np.flatnonzero(np.asarray(days.is_null()))[0]) + 1}")
    return days


def _days(column: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(column.cast(pa.int32()))
